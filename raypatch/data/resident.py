"""A whole split where the training needs it:
on the device, or in host memory where that is too small.
"""

from dataclasses import dataclass

import numpy as np
import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.augment import channels_first
from raypatch.data.catalog import DatasetInfo, Split
from raypatch.data.resize import held_size, resize_images
from raypatch.data.source import load_split
from raypatch.data.subset import stratified_subset

DEVICE_SHARE = 0.5
"""Share of the free device memory that images may take;
the rest is for the model and its activations.
"""


@dataclass(frozen=True)
class ResidentSplit:
    """One split: images uint8 (N, C, *spatial), labels int64 (N,) or (N, L),
    index int64 (N,) into the file.

    device: where batches are wanted. Images and labels lie there, or
    where they did not fit both in host memory.
    """

    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of `rows` (int64, where the images lie), on the device,
        without waiting for it.
        """
        images, labels = self.images[rows], self.labels[rows]
        if self.images.device == self.device:
            return images, labels
        return (
            images.pin_memory().to(self.device, non_blocking=True),
            labels.pin_memory().to(self.device, non_blocking=True),
        )


def load_resident(
    config: TrialConfig, split: Split, info: DatasetInfo, options: RunOptions, device: torch.device
) -> ResidentSplit:
    """Load a split for a trial, the train split cut to train_fraction, in the size of the file or of the model.

    The smaller of the two: batches are enlarged when they are used. Raises DataError where the file
    is missing or wrong.
    """
    loaded = load_split(config.source, split, fold=config.fold, data_dir=options.data_dir, files=options.files)
    rows = np.arange(len(loaded.labels))
    if split == "train" and config.train_fraction < 1:
        # Of the training images alone: every share is measured on the same validation and test.
        rows = stratified_subset(loaded.labels, config.train_fraction, config.seed)
    images = channels_first(loaded.images[rows], dimensions=info.dimensions)
    images = resize_images(images, held_size(info.size, config.image_size, config.resize), config.resize)
    labels = torch.from_numpy(loaded.labels[rows])
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # A byte per pixel: images stay uint8 until they are used.
        if images.numel() <= DEVICE_SHARE * free:
            images, labels = images.to(device), labels.to(device)
    return ResidentSplit(images, labels, torch.from_numpy(loaded.index[rows]), device)
