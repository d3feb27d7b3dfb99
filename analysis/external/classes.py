"""Classes of images of another source, predicted by a run's best model, and what is written of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raypatch.analysis.answer.clinical import examine_stacks
from raypatch.analysis.answer.evidence import pooled_reliability
from raypatch.analysis.external.scores import Asked, Tested, compare_scores, internal_stack, without_learnt
from raypatch.analysis.external.seen import Seen, find_seen
from raypatch.analysis.report_parts import Report
from raypatch.analysis.show.external import EXTERNAL, INTERNAL, Compared
from raypatch.analysis.show.external_classes import compose_external_classes
from raypatch.analysis.statistics.diagnostics import CALIBRATION
from raypatch.analysis.statistics.patients import by_patient
from raypatch.analysis.statistics.stacks import Stack
from raypatch.predict import (
    UNKNOWN,
    FinishedTrial,
    image_table,
    match_truth,
    patient_table,
    predict_member,
)
from raypatch.predict.source import Source
from raypatch.results import DatasetFacts, SweepPaths
from raypatch.tasks import ClassTask, find_task, task_metrics


def evaluate_classes(run: Path, asked: Asked, members: Sequence[FinishedTrial], source: Source) -> Tested:
    """Test the members, seeds of one recipe, on the labelled images of a source.

    Raises ValueError for images without labels, for classes that are none of the model's, and for a
    sensitivity that is no share.
    """
    if asked.sensitivity is not None and not 0 < asked.sensitivity <= 1:
        raise ValueError(f"sensitivity {asked.sensitivity:g}: it must be above 0 and at most 1, such as 0.95")
    best = members[0]
    label = _labels(source, best.dataset, asked)
    # Seeds see the same images.
    images = source.read(best.config, best.dataset)
    seen = find_seen(run, best, source, images)
    probability = np.stack([predict_member(member, images, asked.device) for member in members])
    external = _external_stack(source, label, probability)
    mean = probability.mean(axis=0)
    tables = {"predictions.csv": image_table(source, mean, best.dataset)}
    patients = patient_table(source, mean, best.dataset)
    if patients is not None:
        tables["patients.csv"] = patients
    return Tested(_report(run, asked, members, external, _left_out(label), seen), tables, seen)


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


def _report(
    run: Path, asked: Asked, members: Sequence[FinishedTrial], external: Stack, unlabelled: int, seen: Seen
) -> Report:
    best = members[0]
    task = find_task(best.dataset.task)
    assert isinstance(task, ClassTask), "asked for classes alone"
    val, internal = internal_stack(members, "val"), internal_stack(members, "test")
    stacks = {INTERNAL: internal, EXTERNAL: without_learnt(external, seen)}
    metrics = (*(metric for metric in task_metrics(task) if metric.always_shown), *CALIBRATION)
    parts: dict[str, list[pd.DataFrame]] = {}
    for place, stack in stacks.items():
        frames = examine_stacks(val, stack, task, best.dataset.classes, asked.sensitivity)
        frames["reliability"] = pooled_reliability(stack, task)
        for name, frame in frames.items():
            parts.setdefault(name, []).append(frame.assign(data=place))
    frames = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    frames["scores"] = compare_scores(stacks, task, metrics)
    patients = {name: by_patient(stack) for name, stack in stacks.items()}
    # Patients whose images differ in their label may be all of them.
    known = {name: found.stack for name, found in patients.items() if found and len(found.stack.label)}
    if EXTERNAL in known:
        frames["patients"] = compare_scores(known, task, metrics)
    if len(stacks[EXTERNAL].label) < len(external.label):
        frames["everything"] = compare_scores({INTERNAL: internal, EXTERNAL: external}, task, metrics)
    return compose_external_classes(
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
