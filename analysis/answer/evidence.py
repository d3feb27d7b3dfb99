"""What the stored test predictions of one series say: intervals, differences, calibration, classes, confusions."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from raypatch.analysis.load import HEADLINE, METRICS, Problem
from raypatch.analysis.statistics.diagnostics import (
    brier_score,
    class_figures,
    confidences,
    expected_calibration_error,
    reliability,
)
from raypatch.analysis.statistics.resampling import (
    RESAMPLES,
    Weights,
    bootstrap_difference,
    bootstrap_score,
    draw_images,
)
from raypatch.analysis.statistics.stacks import Stack, load_stack
from raypatch.data.catalog import Task
from raypatch.results import DamagedFileError
from raypatch.tasks.metrics import confusion_matrices


@dataclass(frozen=True)
class Evidence:
    """Frames of one or several series; where of several, each with the series' keys as further columns.

    intervals: 95 % bounds of each patch size and metric. differences: headline metric of each patch size against the
    largest, `baseline`, with 95 % bounds and p. calibration: expected calibration error and Brier score of each seed.
    classes: `class_figures` of each seed. confusions: images by true and predicted class, mean over seeds.
    reliability: `reliability` of the predictions of all seeds.
    """

    intervals: pd.DataFrame
    differences: pd.DataFrame
    calibration: pd.DataFrame
    classes: pd.DataFrame
    confusions: pd.DataFrame
    reliability: pd.DataFrame


EVIDENCE_COLUMNS = {
    "intervals": ["patch_size", "metric", "low", "high"],
    "differences": ["patch_size", "baseline", "estimate", "low", "high", "p"],
    "calibration": ["patch_size", "seed", "ece", "brier"],
    "classes": ["patch_size", "seed", "class", "images", "recall", "precision", "f1"],
    "confusions": ["patch_size", "true", "predicted", "images"],
    "reliability": ["patch_size", "low", "high", "predictions", "confidence", "accuracy"],
}


def usable_predictions(trials: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the trials whose val and test predictions can be read, are numbers, and agree with their dataset's trials.

    Where trials disagree on images, labels or classes, the more numerous side is kept.
    """
    prints: dict[int, str] = {}
    problems = []
    for place, row in zip(trials.index, trials.to_dict("records"), strict=True):
        try:
            stacks = [load_stack(trials.loc[[place]], split) for split in ("val", "test")]
        except DamagedFileError as error:
            problems.append(Problem(Path(row["folder"]), str(error)))
            continue
        if any(np.isnan(stack.probability).any() for stack in stacks):
            problems.append(Problem(Path(row["folder"]), "predicts NaN; its training diverged"))
            continue
        digest = hashlib.sha256()
        for stack in stacks:
            digest.update(repr((stack.label.shape, stack.probability.shape[2])).encode())
            digest.update(stack.index.tobytes() + stack.label.tobytes())
        prints[place] = digest.hexdigest()
    usable = trials.loc[list(prints)]
    kept = []
    for _, group in usable.groupby("dataset", sort=False):
        common = Counter(prints[place] for place in group.index).most_common(1)[0][0]
        for place in group.index:
            if prints[place] == common:
                kept.append(place)
                continue
            reason = f"predicts other images or labels than the other trials of {group['dataset_label'].iloc[0]}"
            problems.append(Problem(Path(str(trials.loc[place, "folder"])), reason))
    return trials.loc[sorted(kept)], problems


def examine_series(trials: pd.DataFrame, resamples: int = RESAMPLES) -> Evidence:
    """Examine the test predictions of the trials of one series: one recipe per patch size, any seeds.

    Raises what `load_stack` raises.
    """
    task: Task = trials["task"].iloc[0]
    names: tuple[str, ...] = trials["classes"].iloc[0]
    cells = {int(str(patch)): cell.sort_values("seed") for patch, cell in trials.groupby("patch_size")}
    stacks = {patch: load_stack(cell, "test") for patch, cell in cells.items()}
    weights = draw_images(stacks[min(stacks)].label, resamples)
    rows: dict[str, list[pd.DataFrame]] = {name: [] for name in ("calibration", "classes", "confusions", "reliability")}
    for patch, stack in stacks.items():
        for seed, member in zip(cells[patch]["seed"], stack.probability, strict=True):
            curve = reliability(*confidences(member, stack.label, task))
            errors = {"ece": expected_calibration_error(curve), "brier": brier_score(member, stack.label, task)}
            own = {"patch_size": patch, "seed": seed}
            rows["calibration"].append(pd.DataFrame([own | errors]))
            rows["classes"].append(class_figures(member, stack.label, task, names).assign(**own))
        rows["confusions"].append(_mean_confusions(stack, task, names).assign(patch_size=patch))
        rows["reliability"].append(_pooled_reliability(stack, task).assign(patch_size=patch))
    return Evidence(
        intervals=_intervals(stacks, task, weights),
        differences=_differences(stacks, task, weights),
        **{name: join_rows(frames, EVIDENCE_COLUMNS[name]) for name, frames in rows.items()},
    )


def join_rows(frames: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows of all frames under one index, with `columns`; no rows where there is no frame."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True)[list(columns)] if filled else pd.DataFrame(columns=list(columns))


def _intervals(stacks: Mapping[int, Stack], task: Task, weights: Weights) -> pd.DataFrame:
    rows = []
    for patch, stack in stacks.items():
        for metric in METRICS:
            found = bootstrap_score(stack, task, metric, weights)
            rows.append((patch, metric, found.low, found.high))
    return pd.DataFrame(rows, columns=EVIDENCE_COLUMNS["intervals"])


def _differences(stacks: Mapping[int, Stack], task: Task, weights: Weights) -> pd.DataFrame:
    """Compare every patch size with the largest one."""
    baseline = max(stacks)
    rows = []
    for patch in sorted(set(stacks) - {baseline}, reverse=True):
        found = bootstrap_difference(stacks[patch], stacks[baseline], task, HEADLINE, weights)
        rows.append((patch, baseline, found.estimate, found.low, found.high, found.p))
    return pd.DataFrame(rows, columns=EVIDENCE_COLUMNS["differences"])


def _mean_confusions(stack: Stack, task: Task, names: tuple[str, ...]) -> pd.DataFrame:
    """Return true, predicted, images of each pair of classes; nothing for a multilabel task."""
    if task == "multilabel":
        return pd.DataFrame()
    matrix = np.mean([confusion_matrices(member, stack.label, task)[0] for member in stack.probability], axis=0)
    pairs = [(true, predicted, matrix[i, j]) for i, true in enumerate(names) for j, predicted in enumerate(names)]
    return pd.DataFrame(pairs, columns=["true", "predicted", "images"])


def _pooled_reliability(stack: Stack, task: Task) -> pd.DataFrame:
    pairs = [confidences(member, stack.label, task) for member in stack.probability]
    confidence, right = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return reliability(confidence, right)
