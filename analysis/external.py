"""A run's best model on data of another source: every score beside the internal one, and how much it drops."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypatch.analysis.answer.clinical import examine_stacks
from raypatch.analysis.answer.evidence import pooled_reliability
from raypatch.analysis.report import write_files
from raypatch.analysis.report_parts import Report, report_latex, report_markdown
from raypatch.analysis.seen import LEARNT, Seen, find_seen
from raypatch.analysis.show.external import EXTERNAL, INTERNAL, Compared, compose_external
from raypatch.analysis.show.page.page import render_page
from raypatch.analysis.statistics.diagnostics import CALIBRATION
from raypatch.analysis.statistics.draws import Draws, measure_level
from raypatch.analysis.statistics.inference import LevelScores, mean_difference, score_interval
from raypatch.analysis.statistics.patients import by_patient
from raypatch.analysis.statistics.stacks import Stack
from raypatch.analysis.written import Written
from raypatch.data.catalog import Split
from raypatch.predict import (
    UNKNOWN,
    FinishedTrial,
    choose_members,
    find_trials,
    image_table,
    match_truth,
    open_source,
    patient_table,
    predict_member,
    seeds_of,
)
from raypatch.predict.source import Source
from raypatch.results import DatasetFacts, Predictions, SweepPaths, read_predictions
from raypatch.tasks import ClassTask, Metric, Task, UndefinedMetricWarning, find_task, task_metrics


@dataclass(frozen=True)
class Asked:
    """What an external test is about.

    data: see `open_source`. dataset, level: which model, where the run has several; its level by
    validation where none is named. split: of the data. rename: classes of the data by the model's
    names. columns: of a table. sensitivity: what thresholds have to reach on validation.
    """

    data: Path
    dataset: str | None = None
    level: str | None = None
    split: Split = "test"
    rename: Mapping[str, str] | None = None
    columns: Mapping[str, str] | None = None
    sensitivity: float | None = None
    device: str = "auto"


def evaluate_external(run: Path, asked: Asked, out: Path | None = None) -> Written:
    """Test the best model of a run, all its seeds, on labelled data of another source; write a report.

    out: default external/NAME in the run folder. Written: report.html, report.md, tables.tex,
    tables/*.csv, figures, predictions.csv; where patients are known, patients.csv; where images
    repeat those of the run, repeats.csv. Raises
    ValueError for data without labels and for classes that are none of the model's.
    """
    if asked.sensitivity is not None and not 0 < asked.sensitivity <= 1:
        raise ValueError(f"sensitivity {asked.sensitivity:g}: it must be above 0 and at most 1, such as 0.95")
    found = find_trials(run)
    (best,) = choose_members(found, asked.dataset, [asked.level] if asked.level else None)
    if not isinstance(find_task(best.dataset.task), ClassTask):
        raise ValueError(
            f"{run} has segmentations: other data are tested on classes alone. `raypatch predict` makes masks of them"
        )
    # Seeds whose weights were removed cannot predict.
    members = [member for member in seeds_of(best, found) if member.paths.best_weights.exists()] or [best]
    source = open_source(asked.data, asked.split, best.dataset, asked.columns)
    label = _labels(source, best.dataset, asked)
    # Seeds see the same images.
    images = source.read(best.config, best.dataset)
    seen = find_seen(run, best, source, images)
    probability = np.stack([predict_member(member, images, asked.device) for member in members])
    external = _external_stack(source, label, probability)
    report = _report(run, asked, members, external, _left_out(label), seen)
    folder = out or run / "external" / asked.data.stem
    mean = probability.mean(axis=0)
    texts = {
        "report.html": render_page(report),
        "report.md": report_markdown(report),
        "tables.tex": report_latex(report),
        "predictions.csv": image_table(source, mean, best.dataset),
    }
    if seen.twins:
        texts["repeats.csv"] = seen.pairs(source.names)
    patients = patient_table(source, mean, best.dataset)
    if patients is not None:
        texts["patients.csv"] = patients
    try:
        files = write_files(folder, texts, report)
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror or error}; give another --out") from error
    return Written(folder, tuple(files), report.text, report.data)


def _labels(source: Source, facts: DatasetFacts, asked: Asked) -> np.ndarray[Any, np.dtype[np.int64]]:
    if source.truth is None:
        raise ValueError(
            f"{asked.data} has no labels: an .npz needs {asked.split}_labels, a folder a sub-folder for each class, a"
            " table a column of labels; without them `raypatch predict` predicts"
        )
    label = match_truth(source.truth, facts, asked.rename)
    if _left_out(label) == len(label):
        raise ValueError(f"no image of {asked.data} has a label")
    return label


def _left_out(label: np.ndarray[Any, np.dtype[np.int64]]) -> int:
    """How many images have no label."""
    return 0 if label.ndim == 2 else int((label == UNKNOWN).sum())


def _external_stack(source: Source, label: np.ndarray[Any, Any], probability: np.ndarray[Any, Any]) -> Stack:
    kept = np.flatnonzero(label != UNKNOWN) if label.ndim == 1 else np.arange(len(label))
    group = None if source.patients is None else source.patients[kept]
    return Stack(kept, label[kept], probability[:, kept], group)


def _internal_stack(members: Sequence[FinishedTrial], split: Split) -> Stack:
    found: list[Predictions] = [read_predictions(member.paths.predictions, split) for member in members]
    first = found[0]
    return Stack(first.index, first.label, np.stack([each.probability for each in found]), first.group)


def _report(
    run: Path, asked: Asked, members: Sequence[FinishedTrial], external: Stack, unlabelled: int, seen: Seen
) -> Report:
    best = members[0]
    task = find_task(best.dataset.task)
    assert isinstance(task, ClassTask), "evaluate_external refuses others"
    val, internal = _internal_stack(members, "val"), _internal_stack(members, "test")
    new = ~np.isin(external.index, seen.rows(*LEARNT))
    # What the models learnt from tells nothing of other data. Where that is all, it is shown, and said.
    stacks = {INTERNAL: internal, EXTERNAL: external.take(new) if new.any() else external}
    metrics = (*(metric for metric in task_metrics(task) if metric.always_shown), *CALIBRATION)
    parts: dict[str, list[pd.DataFrame]] = {}
    for place, stack in stacks.items():
        frames = examine_stacks(val, stack, task, best.dataset.classes, asked.sensitivity)
        frames["reliability"] = pooled_reliability(stack, task)
        for name, frame in frames.items():
            parts.setdefault(name, []).append(frame.assign(data=place))
    frames = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    # A class that the other source lacks leaves a score undefined, which its dash says.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        frames["scores"] = pd.DataFrame(_scores(stacks, task, metrics))
        patients = {name: by_patient(stack) for name, stack in stacks.items()}
        # Patients whose images differ in their label may be all of them.
        known = {name: found.stack for name, found in patients.items() if found and len(found.stack.label)}
        if EXTERNAL in known:
            frames["patients"] = pd.DataFrame(_scores(known, task, metrics))
        if len(stacks[EXTERNAL].label) < len(external.label):
            frames["everything"] = pd.DataFrame(_scores({INTERNAL: internal, EXTERNAL: external}, task, metrics))
    return compose_external(
        Compared(
            run=SweepPaths(run).folder.name,
            source=asked.data.name,
            members=tuple(member.result.trial_id for member in members),
            dataset=best.config.dataset_label,
            classes=best.dataset.classes,
            metrics=tuple(metrics),
            default_metric=task.default_metric,
            external=external,
            stacks=stacks,
            frames=frames,
            unlabelled=unlabelled,
            mixed={name: found.mixed for name, found in patients.items() if found is not None},
            sensitivity=asked.sensitivity,
            seen=seen,
        )
    )


def _scores(stacks: Mapping[str, Stack], task: Task, metrics: Sequence[Metric]) -> Iterator[dict[str, Any]]:
    """Each metric on each data with its interval, and external minus internal where both are there."""
    draws = {}
    # Other draws for other images: the difference is not paired.
    for seed, (name, stack) in enumerate(stacks.items()):
        draws[name] = Draws(task.strata(stack.label), seed=seed, groups=stack.group)
    for metric in metrics:
        row: dict[str, Any] = {"metric": metric.name}
        measured: dict[str, LevelScores] = {}
        for name, stack in stacks.items():
            measured[name] = measure_level(stack, task, metric, draws[name])
            value = score_interval(measured[name], bounds=metric.bounds)
            row |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        if len(measured) == len((INTERNAL, EXTERNAL)):
            gap = mean_difference([measured[EXTERNAL]], [measured[INTERNAL]], paired=False)
            row |= {"difference": gap.estimate, "difference_low": gap.low, "difference_high": gap.high}
        yield row
