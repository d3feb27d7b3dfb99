"""The customary training loop, which most published code of this kind runs: what the engine is measured against.

PIL images, torchvision transforms per sample, a DataLoader in the training process, a timm model in float32, AdamW as
torch gives it, the loss read after every step. The recipe is that of the patch-size study (arXiv 2602.18614).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """2D images (N, H, W, 3) uint8 as PIL images through the paper's transforms, one by one."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], *, training: bool) -> None:
        self.images, self.labels = images, labels
        steps = [
            transforms.RandomResizedCrop(images.shape[1], scale=(0.8, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ColorJitter(brightness=0.2, contrast=0.2),
        ]
        always = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
        self.transform = transforms.Compose([*(steps if training else []), *always])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class Volumes(Dataset[tuple[torch.Tensor, int]]):
    """3D volumes (N, D, H, W) uint8, grey repeated to three channels, flipped and turned in the plane one by one."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], *, training: bool) -> None:
        self.images, self.labels, self.training = images, labels, training

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        volume = torch.from_numpy(self.images[index]).float().div(255).sub(0.5).div(0.5).repeat(3, 1, 1, 1)
        if self.training:
            flip_down, flip_across, turns = torch.randint(0, 2, ()), torch.randint(0, 2, ()), torch.randint(0, 4, ())
            volume = volume.flip(2) if flip_down else volume
            volume = volume.flip(3) if flip_across else volume
            volume = torch.rot90(volume, int(turns), (2, 3))
        return volume, int(self.labels[index])


def make_loader(
    images: NDArray[np.uint8], labels: NDArray[np.int64], *, batch_size: int, training: bool
) -> DataLoader[tuple[torch.Tensor, int]]:
    """A loader in the training process, shuffled for training."""
    kind = Volumes if images.shape[-1] != 3 else Pictures
    dataset: Dataset[tuple[torch.Tensor, int]] = kind(images, labels, training=training)
    return DataLoader(dataset, batch_size=batch_size, shuffle=training, num_workers=0)


def make_customary_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with torch's defaults, neither fused nor capturable."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)


def train_epoch(
    model: nn.Module,
    loader: DataLoader[tuple[torch.Tensor, int]],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> list[float]:
    """Train one pass over the loader; returns the loss of every step."""
    model.train()
    losses = []
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, int]], device: torch.device) -> torch.Tensor:
    """Logits (N, C) over the loader, batch by batch."""
    model.eval()
    return torch.cat([model(images.to(device)).cpu() for images, _ in loader])
