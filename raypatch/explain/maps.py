"""All maps of a trial on its images, measured: one row per image and map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypatch.explain.measure import deletion_insertion, mass_ratio, pointing
from raypatch.explain.saliency import (
    INSTALL,
    can_grad_cam,
    centre_maps,
    class_attention,
    enlarge,
    grad_cam,
    half_mass,
    has_class_attention,
    map_layer,
    random_maps,
)
from raypatch.explain.subject import Subject
from raypatch.predict.source import Truth
from raypatch.results.explained import SaliencyRow
from raypatch.tasks import find_task

ATTENTION, GRAD_CAM = "attention", "grad-cam"

MOST_DELETED = 64
"""Images that are deleted and inserted: each takes 22 passes for each map."""

Maps = dict[str, NDArray[np.float32]]
"""By name, each (N, *spatial) in the size of the model's input."""


@dataclass(frozen=True)
class Said:
    """What a trial says of N images.

    classes: (N,), the most probable. probability: (N,), of it. label, predicted: in words. right: (N,).
    """

    classes: NDArray[np.int64]
    probability: NDArray[np.float32]
    label: Sequence[str]
    predicted: Sequence[str]
    right: NDArray[np.bool_]


def said_of(subject: Subject) -> Said:
    """Return what the trial's stored predictions say of a subject's images."""
    stored, names = subject.predictions, subject.member.dataset.classes
    classes = stored.probability.argmax(axis=1)
    rows = np.arange(len(classes))
    right = stored.label == classes if stored.label.ndim == 1 else stored.label[rows, classes] == 1
    return Said(
        classes=classes,
        probability=stored.probability[rows, classes],
        label=Truth(stored.label, names).words(),
        predicted=[names[each] for each in classes],
        right=right,
    )


def why_no_map(subject: Subject) -> str:
    """Return why a subject has no map at all; empty where it has one."""
    if has_class_attention(subject.prepared):
        return ""
    model = subject.member.config.model
    if map_layer(subject.prepared, subject.member.dataset.dimensions) is None:
        return (
            f"model {model} has neither a class token that its head reads nor a layer for Grad-CAM;"
            " plain Vision Transformers (vit_*, deit*) have both, CNNs of timm and torchvision the layer"
        )
    return "" if can_grad_cam() else f"model {model} has no class token. {INSTALL}"


def make_maps(subject: Subject, classes: NDArray[np.int64]) -> Maps:
    """Return the maps that the model has, then a random one of the same grid, and one that falls from the centre."""
    prepared, images = subject.prepared, subject.images
    size, dimensions = prepared.image_size, images.ndim - 2
    maps: Maps = {}
    grid: tuple[int, ...] = (size,) * dimensions
    if has_class_attention(prepared):
        heads = class_attention(prepared, images)
        grid = heads.shape[2:]
        maps[ATTENTION] = enlarge(heads.mean(axis=1), size)
        for head in range(heads.shape[1]):
            maps[f"{ATTENTION} head {head + 1}"] = enlarge(heads[:, head], size)
    if map_layer(prepared, dimensions) is not None and can_grad_cam():
        maps[GRAD_CAM], grid = grad_cam(prepared, images, classes)
    maps["random"] = enlarge(random_maps(len(images), grid), size)
    maps["centre"] = centre_maps(len(images), (size,) * dimensions)
    return maps


def measure_maps(subject: Subject, said: Said, maps: Maps) -> list[SaliencyRow]:
    """Return a row per image and map: against the masks where there are any, else by deletion and insertion.

    The latter of the mean attention and the other maps, not of each head, and of MOST_DELETED images.
    """
    rows = []
    patients = subject.predictions.group
    for name, values in maps.items():
        areas = half_mass(values).reshape(len(values), -1).mean(axis=1)
        scores = _scores(subject, said, name, values)
        for image, index in enumerate(subject.predictions.index):
            rows.append(
                SaliencyRow(
                    dataset=subject.member.config.dataset,
                    trial_id=subject.member.result.trial_id,
                    level=subject.level,
                    index=int(index),
                    patient="" if patients is None else str(patients[image]),
                    label=said.label[image],
                    predicted=said.predicted[image],
                    probability=float(said.probability[image]),
                    map=name,
                    half_area=float(areas[image]),
                    **{score: float(each[image]) for score, each in scores.items()},
                )
            )
    return rows


def _scores(subject: Subject, said: Said, name: str, maps: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    nothing = np.full(len(maps), math.nan)
    scores = {"pointing": nothing, "mass_ratio": nothing, "deletion": nothing, "insertion": nothing}
    if subject.masks is not None:
        scores["pointing"], scores["mass_ratio"] = pointing(maps, subject.masks), mass_ratio(maps, subject.masks)
    elif not name.startswith(f"{ATTENTION} head"):
        few = slice(MOST_DELETED)
        task = find_task(subject.member.dataset.task)
        found = deletion_insertion(
            subject.prepared, subject.images[few], maps[few], said.classes[few], task.probabilities
        )
        for score, values in zip(("deletion", "insertion"), found, strict=True):
            scores[score] = np.concatenate([values, nothing[len(values) :]])
    return scores
