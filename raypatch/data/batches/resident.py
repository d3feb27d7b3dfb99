"""A whole split where the training needs it:
on the device, or in host memory where that is too small.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.augment import channels_first
from raypatch.data.batches.resize import held_size, resize_images
from raypatch.data.batches.subset import stratified_subset
from raypatch.data.catalog import DatasetInfo, Split
from raypatch.data.source import load_split

DEVICE_SHARE = 0.5
"""Share of the free device memory that images may take;
the rest is for the model and its activations.
"""


@dataclass(frozen=True)
class ResidentSplit:
    """One split: images uint8 (N, C, *spatial), labels int64 (N,) or (N, L) or masks uint8 (N, H, W)
    as large as the file has them, index int64 (N,) into the split.

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
    masks = info.task == "segmentation"
    loaded = load_split(
        config.source, split, masks=masks, fold=config.fold, data_dir=options.data_dir, files=options.files
    )
    index = used_rows(config, split, loaded.labels)
    images = channels_first(loaded.images[index], dimensions=info.dimensions)
    images = resize_images(images, held_size(info.size, config.image_size, config.resize), config.resize)
    labels = torch.from_numpy(loaded.labels[index])
    # A byte per pixel: images stay uint8 until they are used.
    if device_has_room(device, images.nbytes + labels.nbytes):
        images, labels = images.to(device), labels.to(device)
    return ResidentSplit(images, labels, torch.from_numpy(index), device)


def used_rows(config: TrialConfig, split: Split, labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return which images of a split a trial sees, as sorted positions (N,) in the split.

    Of masks those that are empty and those that are not stand for two classes.
    """
    if split == "train" and config.train_fraction < 1:
        # Of the training images alone: every share is measured on the same validation and test.
        kinds = np.asarray((labels > 0).any(axis=(1, 2)), np.int64) if labels.ndim == 3 else labels
        return stratified_subset(kinds, config.train_fraction, config.seed)
    return np.arange(len(labels))


def device_has_room(device: torch.device, size: int) -> bool:
    """Whether a GPU can hold `size` bytes of data beside a model; a CPU has them in memory anyway."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return size <= DEVICE_SHARE * free
