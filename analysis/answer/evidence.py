"""What the stored test predictions of one series say: intervals, differences, calibration, classes, confusions."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from raypatch.analysis.answer.majority import MAJORITY_COLUMNS, compare_with_majority
from raypatch.analysis.frames.trial_rows import Problem
from raypatch.analysis.statistics.diagnostics import class_scores, expected_calibration_error, mask_scores, reliability
from raypatch.analysis.statistics.draws import RESAMPLES, Draws, measure_level
from raypatch.analysis.statistics.inference import LevelScores, mean_difference, score_interval
from raypatch.analysis.statistics.power import seeds_needed
from raypatch.analysis.statistics.stacks import Stack, load_stack
from raypatch.results import DamagedFileError
from raypatch.tasks import ClassTask, Metric, Probability, Task, find_task, task_metrics


@dataclass(frozen=True)
class Evidence:
    """Frames of one or several series; where of several, each with the series' keys as further columns.

    intervals: 95 % bounds of each level and metric. differences: headline metric of each level
    against each other one, `baseline`, with 95 % bounds, p (NaN where one of them has one seed),
    seeds (of the level with fewer) and with how many of each level it would be seen (`needed`, NaN
    where no number would do or is known). calibration: expected calibration error and Brier score
    of each seed. classes: `class_scores` of each seed. confusions: images by true and predicted
    class, mean over seeds. reliability: `reliability` of the predictions of all seeds. majority: as
    `compare_with_majority`. level_scores: the headline metric by series' keys and level.
    """

    intervals: pd.DataFrame
    differences: pd.DataFrame
    calibration: pd.DataFrame
    classes: pd.DataFrame
    confusions: pd.DataFrame
    reliability: pd.DataFrame
    majority: pd.DataFrame
    level_scores: Mapping[tuple[object, ...], LevelScores] = field(default_factory=dict)


EVIDENCE_COLUMNS = {
    "intervals": ["level", "metric", "low", "high"],
    "differences": ["level", "baseline", "estimate", "low", "high", "p", "seeds", "needed"],
    "calibration": ["level", "seed", "ece", "brier"],
    "classes": ["level", "seed", "class", "images", "recall", "precision", "f1"],
    "confusions": ["level", "true", "predicted", "images"],
    "reliability": ["level", "low", "high", "predictions", "confidence", "accuracy"],
    "majority": MAJORITY_COLUMNS,
}


def usable_predictions(trials: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the trials whose val and test predictions can be read, are numbers, and agree with their dataset's trials.

    Where trials disagree on images, labels or classes, the more numerous side is kept.
    """
    fingerprints: dict[int, str] = {}
    problems = []
    for index in trials.index:
        trial = trials.loc[[index]]
        try:
            fingerprints[index] = _read_fingerprint(trial)
        except (DamagedFileError, _DivergedError) as error:
            problems.append(Problem(Path(trial["folder"].iloc[0]), str(error)))
    usable = trials.loc[list(fingerprints)].assign(fingerprint=pd.Series(fingerprints, dtype=object))
    kept = []
    # A fold has test images of its own; without folds it is undefined, and one for all.
    for _, group in usable.groupby(["dataset", "fold"], dropna=False, sort=False):
        common = Counter(group["fingerprint"]).most_common(1)[0][0]
        kept.extend(group.index[group["fingerprint"] == common])
        reason = f"predicts other images or labels than the other trials of {group['dataset_label'].iloc[0]}"
        for folder in group.loc[group["fingerprint"] != common, "folder"]:
            problems.append(Problem(Path(folder), reason))
    return trials.loc[sorted(kept)], problems


class _DivergedError(ValueError):
    """A trial predicts what is no number."""


def _read_fingerprint(trial: pd.DataFrame) -> str:
    """Read a trial's predictions; return what it has in common with another trial on the same images and labels."""
    stacks = [load_stack(trial, "val"), load_stack(trial, "test")]
    for stack in stacks:
        if np.isnan(stack.probability).any():
            raise _DivergedError("predicts NaN; its training diverged")
    return _fingerprint(stacks)


def _fingerprint(stacks: Sequence[Stack]) -> str:
    """The digest of the images, labels and number of classes on both splits."""
    digest = hashlib.sha256()
    for stack in stacks:
        digest.update(repr((stack.label.shape, stack.probability.shape[2])).encode())
        digest.update(stack.index.tobytes() + stack.label.tobytes())
    return digest.hexdigest()


def examine_series(
    trials: pd.DataFrame, metric: Metric, metrics: Sequence[Metric], resamples: int = RESAMPLES
) -> Evidence:
    """Examine the test predictions of the trials of one series: one recipe per level, any seeds.

    metric: the one that differences are of. metrics: those that get intervals. Raises what
    `load_stack` raises.
    """
    task = find_task(trials["task"].iloc[0])
    names: tuple[str, ...] = trials["classes"].iloc[0]
    ordered = trials.sort_values(["level_rank", "seed"], kind="stable")
    stacks: dict[str, Stack] = {}
    calibration, classes, confusions, curves = [], [], [], []
    for key, cell in ordered.groupby("level", sort=False):
        level = str(key)
        stack = load_stack(cell, "test")
        stacks[level] = stack
        for seed, member in zip(cell["seed"], stack.probability, strict=True):
            own = {"level": level, "seed": seed}
            if not isinstance(task, ClassTask):
                # The background is no class that is looked for.
                classes.append(mask_scores(member, stack.label, names[1:]).assign(**own))
                continue
            calibration.append(_calibration(member, stack, task).assign(**own))
            classes.append(class_scores(member, stack.label, task, names).assign(**own))
        if isinstance(task, ClassTask):
            confusions.append(_mean_confusions(stack, task, names).assign(level=level))
            curves.append(pooled_reliability(stack, task).assign(level=level))
    own_metrics = [each for each in task_metrics(task) if each in (*metrics, metric)]
    measured = _measure(stacks, task, own_metrics, resamples)
    # The headline is another task's metric where a study has datasets of several tasks.
    headline: dict[str, LevelScores] = {}
    for level, scores in measured.items():
        if metric.name in scores:
            headline[level] = scores[metric.name]
    intervals = _intervals(measured, own_metrics)
    return Evidence(
        intervals=intervals,
        differences=_differences(headline),
        calibration=join_rows(calibration, EVIDENCE_COLUMNS["calibration"]),
        classes=join_rows(classes, EVIDENCE_COLUMNS["classes"]),
        confusions=join_rows(confusions, EVIDENCE_COLUMNS["confusions"]),
        reliability=join_rows(curves, EVIDENCE_COLUMNS["reliability"]),
        majority=_compare_with_majority(stacks, task, own_metrics, intervals),
        level_scores={(level,): scores for level, scores in headline.items()},
    )


def _compare_with_majority(
    stacks: Mapping[str, Stack], task: Task, metrics: Sequence[Metric], intervals: pd.DataFrame
) -> pd.DataFrame:
    if not isinstance(task, ClassTask):
        return pd.DataFrame(columns=MAJORITY_COLUMNS)
    return compare_with_majority(stacks, task, metrics, intervals)


def join_rows(frames: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows of all frames under one index, with `columns`; no rows where there is no frame."""
    # pandas warns of frames without rows, whose columns have no type.
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(filled, ignore_index=True)[list(columns)]


def _calibration(probability: Probability, stack: Stack, task: ClassTask) -> pd.DataFrame:
    """One row: how far one seed's confidence can be trusted."""
    confidence, right = task.confidences(probability, stack.label)
    error = expected_calibration_error(reliability(confidence, right))
    return pd.DataFrame({"ece": [error], "brier": [task.brier(probability, stack.label)]})


def _measure(
    stacks: Mapping[str, Stack], task: Task, metrics: Sequence[Metric], resamples: int
) -> dict[str, dict[str, LevelScores]]:
    """Measure every level's metrics on the same draws of the images."""
    first = next(iter(stacks.values()))
    draws = Draws(task.strata(first.label), resamples, groups=first.group)
    found: dict[str, dict[str, LevelScores]] = {}
    for level, stack in stacks.items():
        found[level] = {metric.name: measure_level(stack, task, metric, draws) for metric in metrics}
    return found


def _intervals(measured: Mapping[str, Mapping[str, LevelScores]], metrics: Sequence[Metric]) -> pd.DataFrame:
    rows = []
    for level, found in measured.items():
        for metric in metrics:
            bounds = score_interval(found[metric.name], bounds=metric.bounds)
            rows.append((level, metric.name, bounds.low, bounds.high))
    return pd.DataFrame(rows, columns=EVIDENCE_COLUMNS["intervals"])


def _differences(headline: Mapping[str, LevelScores]) -> pd.DataFrame:
    """Compare every level with every other one: which of them is a baseline depends on what others have, too."""
    rows = compare_levels({level: [scores] for level, scores in headline.items()})
    return pd.DataFrame(rows, columns=EVIDENCE_COLUMNS["differences"])


def compare_levels(levels: Mapping[str, Sequence[LevelScores]]) -> list[tuple[object, ...]]:
    """Return a row of EVIDENCE_COLUMNS["differences"] for every level against every other one.

    levels: the scores of each in the same settings, whose mean is compared.
    """
    rows: list[tuple[object, ...]] = []
    for baseline, level in itertools.product(levels, levels):
        if level == baseline:
            continue
        own, against = levels[level], levels[baseline]
        gap = mean_difference(own, against)
        needed = seeds_needed(own, against)
        shown = math.nan if needed is None else float(needed)
        rows.append((level, baseline, gap.estimate, gap.low, gap.high, gap.p, gap.seeds, shown))
    return rows


def _mean_confusions(stack: Stack, task: ClassTask, names: tuple[str, ...]) -> pd.DataFrame:
    """Return true, predicted, images of each pair of classes; nothing where classes do not exclude each other."""
    matrices = []
    for member in stack.probability:
        matrix = task.confusion_table(member, stack.label)
        if matrix is None:
            return pd.DataFrame()
        matrices.append(matrix)
    mean = np.mean(matrices, axis=0)
    pairs = []
    for row, true in enumerate(names):
        for column, predicted in enumerate(names):
            pairs.append((true, predicted, mean[row, column]))
    return pd.DataFrame(pairs, columns=["true", "predicted", "images"])


def pooled_reliability(stack: Stack, task: ClassTask) -> pd.DataFrame:
    """Return `reliability` of the predictions of all seeds together."""
    confidences, rights = [], []
    for member in stack.probability:
        confidence, right = task.confidences(member, stack.label)
        confidences.append(confidence)
        rights.append(right)
    return reliability(np.concatenate(confidences), np.concatenate(rights))
