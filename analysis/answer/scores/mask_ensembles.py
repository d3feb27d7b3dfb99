"""Ensembles of segmentations: the mean of the members' probabilities, pixel by pixel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from raypatch.analysis.frames.columns import score_column
from raypatch.analysis.frames.without_twins import LEFT_OUT
from raypatch.analysis.statistics.stacks import MisalignedError, Stack
from raypatch.data.catalog import Split
from raypatch.results import TrialPaths
from raypatch.results.masks import read_pixels
from raypatch.tasks import MaskTask, Task


def have_pixels(members: Sequence[TrialPaths]) -> bool:
    """Whether all trials have kept the probabilities of their pixels."""
    return all(member.masks.exists() for member in members)


def score_mean_masks(trials: pd.DataFrame, task: Task) -> dict[str, object]:
    """Return the scores of the mean of the trials' probabilities on both splits, by column.

    Raises MisalignedError for trials of other images or masks, and DamagedFileError.
    """
    assert isinstance(task, MaskTask), "asked for masks alone"
    members = trial_paths(trials)
    scores: dict[str, object] = {}
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        found = mean_masks(members, split, task)
        left_out = (trials.iloc[0].get(LEFT_OUT) or ()) if split == "test" else ()
        kept = found.take(~np.isin(found.index, left_out))
        for name, score in task.score(kept.probability[0], kept.label).items():
            scores[score_column(split, name)] = score
    return scores


def trial_paths(trials: pd.DataFrame) -> list[TrialPaths]:
    """Return where the trials of a frame lie."""
    return [TrialPaths(Path(folder)) for folder in trials["folder"]]


def mean_masks(members: Sequence[TrialPaths], split: Split, task: MaskTask) -> Stack:
    """Return what the mean of the trials' stored probabilities predicts, as a stack of one member.

    Raises MisalignedError for trials of other images or masks, and DamagedFileError.
    """
    first = read_pixels(members[0].masks, split)
    total = first.probability.astype(np.float64)
    # One member at a time in memory.
    for member in members[1:]:
        other = read_pixels(member.masks, split)
        same = np.array_equal(other.index, first.index) and np.array_equal(other.truth, first.truth)
        if not same or other.probability.shape != first.probability.shape:
            names = f"{member.folder.name} and {members[0].folder.name}"
            raise MisalignedError(f"{names} predict different {split} images or masks")
        total += other.probability
    predicted = task.predicted_masks(total / (255 * len(members)))
    # One probability tells two classes apart.
    classes = max(1, total.shape[1] - 1)
    counts, truth = task.count(predicted, first.truth, classes)
    return Stack(first.index, truth.astype(np.int64), counts[None].astype(np.float32))
