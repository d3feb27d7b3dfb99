"""What a segmentation keeps of its masks: those of some test images always, all pixels where they are asked for."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.data.batches.resident import ResidentSplit
from raypatch.data.batches.resize import resize_images
from raypatch.data.catalog import Split
from raypatch.models.prepared import PreparedModel
from raypatch.results import TrialPaths
from raypatch.results.masks import Examples, Pixels, write_examples, write_pixels
from raypatch.tasks import MaskTask
from raypatch.training.evaluate import mask_logits

EXAMPLES = 8
"""Test images whose masks are always kept, so that a report can show them without data or weights."""


def keep_examples(
    paths: TrialPaths, prepared: PreparedModel, test: ResidentSplit, task: MaskTask, index: NDArray[np.int64]
) -> None:
    """Write examples.npz: test images evenly spread over the split, the same ones for every trial of a dataset.

    index: by which number each image of the split is known.
    """
    places = spread_over(len(test))
    images, truth = test.images[places], test.labels[places]
    edge = truth.shape[1]
    probability = pixel_probabilities(prepared, images, edge, task)
    write_examples(
        paths.examples,
        Examples(
            index=index[places],
            # Held in the size that the model sees, which may be smaller.
            images=resize_images(images.cpu(), edge, "bilinear").numpy(),
            truth=truth.cpu().numpy(),
            predicted=task.predicted_masks(probability),
        ),
    )


def spread_over(count: int) -> NDArray[np.int64]:
    """Return which of `count` images are shown: EXAMPLES of them, or all, spread evenly."""
    return np.unique(np.linspace(0, count - 1, EXAMPLES).round().astype(np.int64))


def keep_pixels(
    paths: TrialPaths,
    prepared: PreparedModel,
    splits: Mapping[Split, ResidentSplit],
    task: MaskTask,
    indices: Mapping[Split, NDArray[np.int64]],
) -> None:
    """Write masks.npz: the probabilities of all pixels in 255ths, from which ensembles are made."""
    kept: dict[Split, Pixels] = {}
    for name, split in splits.items():
        truth = split.labels.cpu().numpy()
        probability = pixel_probabilities(prepared, split.images, truth.shape[1], task)
        in_bytes = (probability * 255).round().astype(np.uint8)
        kept[name] = Pixels(index=indices[name], probability=in_bytes, truth=truth)
    write_pixels(paths.masks, kept)


def pixel_probabilities(
    prepared: PreparedModel, images: torch.Tensor, edge: int, task: MaskTask
) -> NDArray[np.float32]:
    """Return the probabilities (N, C, edge, edge) of images (N, C, *spatial)."""
    parts = [task.probabilities(logits).cpu().numpy() for logits in mask_logits(prepared, images, edge)]
    return np.concatenate(parts)
