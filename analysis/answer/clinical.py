"""What a reviewer of a clinical paper asks about the level that validation prefers: all its seeds, on the test split.

Each class is a question of its own, this class or another; of two classes the second is the question.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.analysis.answer.evidence import join_rows, usable_predictions
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.statistics.curves.decision import ACT_FROM, benefit_of_all, net_benefit
from raypatch.analysis.statistics.curves.delong import delong
from raypatch.analysis.statistics.curves.roc_and_pr import GRID, average_precision, curve_on_grid
from raypatch.analysis.statistics.curves.thresholds import RATES, behind_rates, choose_threshold, rates_at
from raypatch.analysis.statistics.draws import Draws, draw_images, measure_level
from raypatch.analysis.statistics.inference import score_interval, value_interval
from raypatch.analysis.statistics.patients import by_patient
from raypatch.analysis.statistics.proportions import wilson
from raypatch.analysis.statistics.stacks import Stack, load_stack
from raypatch.data.balance import count_classes, count_patients
from raypatch.tasks import ClassTask, Metric, Task, Weights, find_task, task_metrics, weighted_auc

RESAMPLES = 200
"""Enough for a standard error; each is a whole curve."""


@dataclass(frozen=True)
class Clinical:
    """Frames over all series, each with the series' keys and the level as further columns.

    areas: of each class the area under the ROC curve and the average precision. curves: both curves
    at the points of a grid. operating: RATES at the threshold that validation chose. decision: net
    benefit. units: each metric per image and per patient. balance: images of each class in each
    split. sensitivity: what the thresholds were chosen to reach, None for Youden's.
    """

    areas: pd.DataFrame
    curves: pd.DataFrame
    operating: pd.DataFrame
    decision: pd.DataFrame
    units: pd.DataFrame
    balance: pd.DataFrame
    sensitivity: float | None = None


COLUMNS = {
    "areas": [
        *("class", "positives", "images", "patients", "seeds", "how"),
        *("auc", "auc_low", "auc_high", "ap", "ap_low", "ap_high"),
    ],
    "curves": ["kind", "class", "x", "mean", "low", "high"],
    "operating": [
        *("class", "threshold", "threshold_low", "threshold_high", "seeds", "how"),
        *(name + end for name in RATES for end in ("", "_low", "_high")),
    ],
    "decision": ["class", "act_from", "mean", "low", "high", "everybody"],
    "units": ["unit", "count", "mixed", "metric", "mean", "low", "high"],
    "balance": ["split", "class", "images", "total", "patients"],
}


@dataclass(frozen=True)
class Question:
    """One class against the others. scores: (M, N) of M seeds. truth: (N,). weights: (N, B). patients: who is who."""

    name: str
    scores: NDArray[np.floating]
    truth: NDArray[np.bool_]
    weights: Weights
    patients: NDArray[np.generic] | None

    @property
    def plain(self) -> Weights:
        """Weights that give the value of the images as they are, (N, 1)."""
        return np.ones((len(self.truth), 1), np.float32)

    @property
    def alone(self) -> bool:
        """Whether the images are all that may vary, and each for itself: then there are formulas."""
        return len(self.scores) == 1 and self.patients is None

    def count(self, images: NDArray[np.bool_]) -> int:
        """Return how many of these images there are; of patients, where it is known who is who."""
        return int(images.sum()) if self.patients is None else len(np.unique(self.patients[images]))


def examine_clinically(findings: Findings, sensitivity: float | None = None) -> Clinical:
    """Examine the level that validation prefers in every series.

    sensitivity: what the thresholds have to reach on validation; None for Youden's. A series whose
    predictions cannot be read is left out; the findings say so.
    """
    question = findings.question
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS}
    for gain in findings.gains.to_dict("records"):
        here = pd.Series({key: gain[key] for key in question.series} | {"level": gain["chosen"]})
        trials = findings.trials[(findings.trials[list(here.index)] == here).all(axis=1)]
        usable, _ = usable_predictions(trials)
        if usable.empty:
            continue
        for name, frame in examine_trials(usable, findings.metrics, sensitivity).items():
            parts[name].append(frame.assign(**here))
    joined = {}
    for name, columns in COLUMNS.items():
        joined[name] = join_rows(parts[name], [*question.cell, *columns])
    return Clinical(**joined, sensitivity=sensitivity)


def examine_trials(
    trials: pd.DataFrame, metrics: tuple[Metric, ...], sensitivity: float | None
) -> dict[str, pd.DataFrame]:
    """Return the frames of COLUMNS for the seeds of one recipe at one level."""
    task = find_task(trials["task"].iloc[0])
    names: tuple[str, ...] = trials["classes"].iloc[0]
    val, test = load_stack(trials, "val"), load_stack(trials, "test")
    frames: dict[str, pd.DataFrame] = {}
    if isinstance(task, ClassTask):
        frames |= examine_stacks(val, test, task, names, sensitivity)
    frames["units"] = pd.DataFrame(_units(test, task, metrics))
    frames["balance"] = pd.DataFrame(_balance(trials.iloc[0].to_dict(), val, test, names))
    return frames


def examine_stacks(
    val: Stack, test: Stack, task: ClassTask, names: tuple[str, ...], sensitivity: float | None
) -> dict[str, pd.DataFrame]:
    """Return areas, curves, operating points and net benefit of predictions; val: of the same members."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("areas", "curves", "operating", "decision")}
    chosen_on = {question.name: question for question in ask_questions(val, task, names)}
    for question in ask_questions(test, task, names):
        own = {"class": question.name}
        rows["areas"].append(own | _areas(question))
        rows["operating"].append(own | _operating(question, chosen_on[question.name], sensitivity))
        rows["curves"] += [own | row for row in _curves(question)]
        rows["decision"] += [own | row for row in _decision(question)]
    return {name: pd.DataFrame(found) for name, found in rows.items()}


def ask_questions(stack: Stack, task: ClassTask, names: tuple[str, ...]) -> Iterator[Question]:
    """Yield each class against the others; of two classes that exclude each other the second alone."""
    members = [task.one_versus_rest(member, stack.label) for member in stack.probability]
    truth = members[0][1]
    weights = draw_images(task.strata(stack.label), RESAMPLES, groups=stack.group)
    # Of two classes the first is no question of its own.
    asked = names[len(names) - truth.shape[1] :]
    for place, name in enumerate(asked):
        scores = np.stack([score[:, place] for score, _ in members])
        yield Question(name, scores, truth[:, place], weights, stack.group)


def _areas(question: Question) -> dict[str, Any]:
    scores, truth = question.scores, question.truth
    have, lack = question.count(truth), question.count(~truth)
    # So many images have the variance of Hanley and McNeil, see `parts_of_score`.
    behind = 4 * have * lack / (have + lack + 2)
    plain = np.array([weighted_auc(score, truth, question.plain)[0] for score in scores])
    drawn = np.stack([weighted_auc(score, truth, question.weights) for score in scores])
    area = value_interval(plain, drawn, behind)
    low, high, how = area.low, area.high, _resampled(question)
    # DeLong's variance is 0 where the classes are apart, which says nothing.
    if question.alone and 0 < plain[0] < 1:
        (low, high), how = delong([scores[0]], truth).interval(), "DeLong"
    plain_precision = np.array([average_precision(score, truth, question.plain)[0] for score in scores])
    drawn_precision = np.stack([average_precision(score, truth, question.weights) for score in scores])
    precision = value_interval(plain_precision, drawn_precision, have)
    return {
        "positives": int(truth.sum()),
        "images": len(truth),
        "patients": count_patients(question.patients),
        "seeds": len(scores),
        "how": how,
        "auc": area.estimate,
        "auc_low": low,
        "auc_high": high,
        "ap": precision.estimate,
        "ap_low": precision.low,
        "ap_high": precision.high,
    }


def _resampled(question: Question) -> str:
    """In words, what is a sample in the interval."""
    units = "images" if question.patients is None else "patients"
    return f"{units} and seeds" if len(question.scores) > 1 else units


def _curves(question: Question) -> Iterator[dict[str, Any]]:
    for kind in ("roc", "pr"):
        plain = np.stack([curve_on_grid(kind, score, question.truth, question.plain) for score in question.scores])
        drawn = np.stack([curve_on_grid(kind, score, question.truth, question.weights) for score in question.scores])
        count = question.count(question.truth)
        for place, x in enumerate(GRID):
            value = value_interval(plain[:, place, 0], drawn[:, place], count)
            yield {"kind": kind, "x": x, "mean": value.estimate, "low": value.low, "high": value.high}


def _operating(question: Question, on_val: Question, sensitivity: float | None) -> dict[str, Any]:
    """The rates of the test images at the threshold that each seed's validation chose."""
    thresholds = [choose_threshold(score, on_val.truth, sensitivity) for score in on_val.scores]
    plain: dict[str, list[float]] = {name: [] for name in RATES}
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in RATES}
    counts: dict[str, list[int]] = {name: [] for name in RATES}
    for threshold, score in zip(thresholds, question.scores, strict=True):
        as_they_are = rates_at(threshold, score, question.truth, question.plain)
        resampled = rates_at(threshold, score, question.truth, question.weights)
        behind = behind_rates(threshold, score, question.truth)
        for name in RATES:
            plain[name].append(as_they_are[name][0])
            drawn[name].append(resampled[name])
            counts[name].append(behind[name])
    row: dict[str, Any] = {
        "threshold": float(np.mean(thresholds)),
        "threshold_low": float(np.min(thresholds)),
        "threshold_high": float(np.max(thresholds)),
        "seeds": len(thresholds),
        "how": "Wilson" if question.alone else _resampled(question),
    }
    for name in RATES:
        row |= _rate(name, np.array(plain[name]), np.stack(drawn[name]), min(counts[name]), alone=question.alone)
    return row


def _rate(
    name: str, plain: NDArray[np.float64], drawn: NDArray[np.float64], count: int, *, alone: bool
) -> dict[str, float]:
    if np.isnan(plain).any():
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}
    if alone:
        low, high = wilson(float(plain[0]), count)
        return {name: float(plain[0]), f"{name}_low": low, f"{name}_high": high}
    value = value_interval(plain, drawn, count)
    return {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}


def _decision(question: Question) -> Iterator[dict[str, Any]]:
    plain = np.stack([net_benefit(score, question.truth, question.plain) for score in question.scores])
    drawn = np.stack([net_benefit(score, question.truth, question.weights) for score in question.scores])
    everybody = benefit_of_all(question.truth)
    for place, act_from in enumerate(ACT_FROM):
        # No share: a net benefit may be negative, and has no bounds.
        value = value_interval(plain[:, place, 0], drawn[:, place], len(question.truth), bounds=None)
        yield {
            "act_from": act_from,
            "mean": value.estimate,
            "low": value.low,
            "high": value.high,
            "everybody": everybody[place],
        }


def _units(stack: Stack, task: Task, metrics: tuple[Metric, ...]) -> Iterator[dict[str, Any]]:
    """The metrics per image and per patient; nothing where the data does not say who is who."""
    patients = by_patient(stack)
    if patients is None:
        return
    own = [metric for metric in task_metrics(task) if metric in metrics]
    for unit, part, mixed in (("image", stack, 0), ("patient", patients.stack, patients.mixed)):
        # Patients whose images differ in their label may be all of them.
        if not len(part.label):
            continue
        draws = Draws(task.strata(part.label), groups=part.group)
        for metric in own:
            value = score_interval(measure_level(part, task, metric, draws), bounds=metric.bounds)
            score = {"metric": metric.name, "mean": value.estimate, "low": value.low, "high": value.high}
            yield {"unit": unit, "count": len(part.label), "mixed": mixed} | score


def _balance(trial: Mapping[Any, Any], val: Stack, test: Stack, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The images of each class in each split; of train only the total where the files are older than the balance."""
    known, patients = trial.get("balance") or (), trial.get("patients") or ()
    found = {"val": val, "test": test}
    for place, split in enumerate(("train", "val", "test")):
        counts = known[place] if known else ()
        of_patients = patients[place] if patients else None
        if split in found:
            # As they were scored: without the images that were left out.
            counts = counts if found[split].probability.ndim == 4 else count_classes(found[split].label, len(names))
            of_patients = count_patients(found[split].group)
        total = len(found[split].label) if split in found else int(trial["train_images"])
        for number, name in enumerate(names):
            images = counts[number] if counts else None
            yield {"split": split, "class": name, "images": images, "total": total, "patients": of_patients}
