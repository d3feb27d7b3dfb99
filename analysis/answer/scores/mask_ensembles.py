"""Ensembles of segmentations: the mean of the members' probabilities, pixel by pixel."""

from pathlib import Path

import numpy as np
import pandas as pd

from raypatch.analysis.frames.columns import score_column
from raypatch.analysis.frames.without_twins import LEFT_OUT
from raypatch.analysis.statistics.stacks import MisalignedError
from raypatch.data.catalog import Split
from raypatch.results import TrialPaths
from raypatch.results.masks import Pixels, read_pixels
from raypatch.tasks import MaskTask, Task


def have_pixels(trials: pd.DataFrame) -> bool:
    """Whether all trials have kept the probabilities of their pixels."""
    return all(TrialPaths(Path(folder)).masks.exists() for folder in trials["folder"])


def score_mean_masks(trials: pd.DataFrame, task: Task) -> dict[str, object]:
    """Return the scores of the mean of the trials' probabilities on both splits, by column.

    Raises MisalignedError for trials of other images or masks, and DamagedFileError.
    """
    assert isinstance(task, MaskTask), "asked for masks alone"
    scores: dict[str, object] = {}
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        first, mean = _mean_pixels(trials, split)
        left_out = (trials.iloc[0].get(LEFT_OUT) or ()) if split == "test" else ()
        kept = ~np.isin(first.index, left_out)
        # One probability tells two classes apart.
        classes = max(1, mean.shape[1] - 1)
        counts, truth = task.count(task.predicted_masks(mean[kept]), first.truth[kept], classes)
        for name, score in task.score(counts, truth).items():
            scores[score_column(split, name)] = score
    return scores


def _mean_pixels(
    trials: pd.DataFrame, split: Split
) -> tuple[Pixels, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """The first trial's pixels, and the mean probability of all, one member at a time in memory."""
    members = [TrialPaths(Path(folder)).masks for folder in trials["folder"]]
    first = read_pixels(members[0], split)
    total = first.probability.astype(np.float64)
    for place, path in zip(trials["trial_id"][1:], members[1:], strict=True):
        other = read_pixels(path, split)
        same = np.array_equal(other.index, first.index) and np.array_equal(other.truth, first.truth)
        if not same or other.probability.shape != first.probability.shape:
            raise MisalignedError(f"{place} and {trials['trial_id'].iloc[0]} predict different {split} images or masks")
        total += other.probability
    return first, total / (255 * len(members))
