"""Stored predictions, checked and aligned: of one trial, or of several on the same images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.analysis.frames.without_twins import LEFT_OUT, without
from raypatch.data.catalog import Split
from raypatch.results import DamagedFileError, Predictions, SweepPaths, TrialPaths, read_predictions


class MisalignedError(ValueError):
    """Predictions that should be of the same images are not; the message names the trials."""


@dataclass(frozen=True)
class Stack:
    """Predictions of M trials on the same N images.

    index: (N,), ascending. label: (N,) or (N, C). probability: (M, N, C), members in the order of
    the trials; of masks counts (M, N, C, 2), see `Predictions`. group: (N,), who is on each image,
    where the trials' data says so.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    probability: NDArray[np.float32]
    group: NDArray[np.generic] | None = None

    def take(self, rows: NDArray[np.bool_]) -> "Stack":
        """Return the predictions of some of the images; rows: (N,)."""
        group = None if self.group is None else self.group[rows]
        return Stack(self.index[rows], self.label[rows], self.probability[:, rows], group)


def require_same_images(first: Stack, second: Stack) -> None:
    """Raise MisalignedError unless both are of the same images with the same labels."""
    if not np.array_equal(first.index, second.index) or not np.array_equal(first.label, second.label):
        raise MisalignedError("a paired difference needs predictions of the same images")


def load_predictions(run: Path | str, trial_id: str, split: Split) -> Predictions:
    """Return one trial's predictions of `split` (val or test). Raises DamagedFileError."""
    return _read_split(SweepPaths(Path(run)).trial(trial_id), split, None)


def load_stack(trials: pd.DataFrame, split: Split) -> Stack:
    """Return the predictions of `trials` on `split`, aligned by index.

    Raises MisalignedError when two trials differ in images, labels or classes, DamagedFileError
    when a file is missing, truncated or inconsistent, ValueError without trials.
    """
    if trials.empty:
        raise ValueError("no trial to take predictions of")
    first: Predictions | None = None
    members = []
    for row in trials.to_dict("records"):
        trial_id, left_out = row["trial_id"], (row.get(LEFT_OUT) or ()) if split == "test" else ()
        found = _read_split(TrialPaths(Path(row["folder"])), split, int(row[f"{split}_images"]) + len(left_out))
        found = without(found, left_out)
        found = found.take(np.argsort(found.index, kind="stable"))
        first = first or found
        same = (
            np.array_equal(found.index, first.index)
            and np.array_equal(found.label, first.label)
            and found.probability.shape == first.probability.shape
        )
        if not same:
            raise MisalignedError(
                f"{trial_id} and {trials['trial_id'].iloc[0]} predict different {split} images, labels or"
                " classes; combine only trials of the same dataset file"
            )
        members.append(found.probability)
    assert first is not None
    return Stack(first.index, first.label, np.stack(members), first.group)


def _read_split(paths: TrialPaths, split: Split, images: int | None) -> Predictions:
    found = read_predictions(paths.predictions, split)
    path, classes = paths.predictions, found.probability.shape[1]
    if images is not None and len(found.index) != images:
        raise DamagedFileError(f"{path} holds {len(found.index)} of {images} {split} images; remove the trial folder")
    if len(np.unique(found.index)) != len(found.index):
        raise DamagedFileError(f"{path} holds a {split} image twice; remove the trial folder")
    if found.of_masks:
        return found
    highest = 1 if found.label.ndim == 2 else classes - 1
    if len(found.label) and not 0 <= found.label.min() <= found.label.max() <= highest:
        raise DamagedFileError(f"{path} holds a {split} label out of range 0 to {highest}; remove the trial folder")
    return found
