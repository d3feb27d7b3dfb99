"""A whole split where the training needs it: on the device, or in pinned host memory where that is too small."""

from dataclasses import dataclass

import numpy as np
import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.augment import resize_images, to_float
from raypatch.data.catalog import DatasetInfo, Split
from raypatch.data.source import load_split, stratified_subset

DEVICE_SHARE = 0.5
"""Share of the free device memory that images may take; the rest is for the model and its activations."""


@dataclass(frozen=True)
class ResidentSplit:
    """One split: images uint8 (N, *spatial[, 3]), labels int64 (N,) or (N, L), index int64 (N,) into the file.

    device: where batches are wanted; labels lie there, images too unless they did not fit.
    """

    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of `rows` (int64 on the device), on the device."""
        if self.images.device == self.device:
            return self.images[rows], self.labels[rows]
        return self.images[rows.to(self.images.device)].to(self.device, non_blocking=True), self.labels[rows]


def load_resident(
    config: TrialConfig, split: Split, info: DatasetInfo, options: RunOptions, device: torch.device
) -> ResidentSplit:
    """Load a split for a trial: the train split cut to train_fraction, all resized to image_size.

    Raises DataError where the file is missing or wrong.
    """
    loaded = load_split(config.dataset, split, data_dir=options.data_dir, files=options.files)
    index = np.arange(len(loaded.labels))
    if split == "train" and config.train_fraction < 1:
        index = stratified_subset(loaded.labels, config.train_fraction, config.seed)
    images = torch.from_numpy(loaded.images[index])
    if info.size != config.image_size:
        images = _resize(images, config)
    labels = torch.from_numpy(loaded.labels[index]).to(device)
    if device.type == "cuda":
        fits = images.numel() <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
        images = images.to(device) if fits else images.pin_memory()
    return ResidentSplit(images, labels, torch.from_numpy(index), device)


def _resize(images: torch.Tensor, config: TrialConfig) -> torch.Tensor:
    """Resize uint8 images (N, *spatial[, 3]) to the config's image_size, rounded back to uint8, in chunks."""
    chunks = []
    for chunk in images.split(256):
        resized = resize_images(to_float(chunk), config.image_size, config.resize)  # (B, C, *spatial)
        rounded = resized.mul(255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
        chunks.append(rounded if rounded.shape[-1] == 3 else rounded.squeeze(-1))
    return torch.cat(chunks)
