"""New images predicted by trials of a finished run, probabilities averaged."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.data.catalog import Split
from raypatch.features.extract import extract_features
from raypatch.features.head import place_head
from raypatch.models.heads import feature_kind
from raypatch.predict.choose import FinishedTrial, choose_members, find_trials
from raypatch.predict.source import Source, open_source
from raypatch.predict.weights import prepare_member
from raypatch.results import DatasetFacts
from raypatch.tasks import ClassTask, find_task, reads_masks


class Prediction(NamedTuple):
    """What a prediction gives. table: CSV, a row per image. patients: CSV, a row per patient, None where nobody knows
    who is who. members: the ids of the trials that predicted.
    """

    table: str
    members: list[str]
    patients: str | None = None


def predict(
    folder: Path,
    path: Path,
    *,
    dataset: str | None,
    levels: Sequence[str] | None,
    split: Split,
    device: str,
) -> Prediction:
    """Predict on new images with the best trial of each level, probabilities averaged.

    path: see `open_source`. levels: of what the run compares, FACTOR=LEVEL where that is several
    factors; None takes the single best trial. Best is by validation, among seeds too. split: of an
    .npz. The table has name, predicted class or classes, one probability per class, and truth and
    patient where the source knows them. A patient's probability is the mean of its images'. Raises
    ValueError when there is no such trial or the images do not fit.
    """
    members = choose_members(find_trials(folder), dataset, levels)
    facts = members[0].dataset
    if reads_masks(facts.task):
        raise ValueError(f"{folder} has segmentations: predict_masks predicts by these")
    source = open_source(path, split, facts)
    trial_ids = [member.result.trial_id for member in members]
    total = np.zeros(())
    for member in members:
        # Read for each member: levels may differ in the size that their models see.
        total = total + predict_member(member, source.read(member.config, member.dataset), device)
    mean = (total / len(members)).astype(np.float32)
    return Prediction(image_table(source, mean, facts), trial_ids, patient_table(source, mean, facts))


def predict_member(
    member: FinishedTrial,
    images: torch.Tensor,
    device_name: str,
) -> NDArray[np.float32]:
    """Probabilities (N, C) of one trial's best weights on uint8 images (N, C, *spatial).

    The trial's own images on its own kind of device give its stored probabilities to the bit.
    """
    prepared, head = prepare_member(member, device_name)
    if head is None:
        logits = prepared.logits(images)
    else:
        parts = extract_features(prepared, images, feature_kind(member.config))
        logits = place_head(head, prepared).logits(torch.cat(list(parts)))
    probability = find_task(member.dataset.task).probabilities(logits)
    return probability.cpu().numpy()


def image_table(source: Source, probability: NDArray[np.float32], facts: DatasetFacts) -> str:
    """Return a CSV with a row per image: name, predicted, a probability per class, truth and patient if known."""
    more = {}
    if source.truth is not None:
        more["truth"] = source.truth.words()
    if source.patients is not None:
        more["patient"] = list(source.patients)
    return _as_csv("name", source.names, probability, facts, more)


def patient_table(source: Source, probability: NDArray[np.float32], facts: DatasetFacts) -> str | None:
    """Return a CSV with a row per patient, the mean of its images; None where nobody knows who is who.

    truth: of all its images, several joined by a bar where they differ.
    """
    if source.patients is None:
        return None
    names, place = np.unique(source.patients, return_inverse=True)
    images = np.bincount(place)
    mean = np.stack([np.bincount(place, column) for column in probability.T], axis=1) / images[:, None]
    more: dict[str, list[str]] = {"images": list(map(str, images))}
    if source.truth is not None:
        said: list[dict[str, None]] = [{} for _ in names]
        for patient, word in zip(place, source.truth.words(), strict=True):
            said[patient][word] = None
        more["truth"] = [" | ".join(words) for words in said]
    return _as_csv("patient", list(names), mean.astype(np.float32), facts, more)


def _as_csv(
    heading: str,
    names: Sequence[str],
    probability: NDArray[np.float32],
    facts: DatasetFacts,
    more: Mapping[str, Sequence[str]],
) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([heading, "predicted", *map("p({})".format, facts.classes), *more])
    task = find_task(facts.task)
    assert isinstance(task, ClassTask), "masks have a table of their own"
    words = task.words(probability, facts.classes)
    rows = zip(names, words, probability, *more.values(), strict=True)
    for name, predicted, row, *rest in rows:
        # tolist: a float of Python's prints all its digits, numpy's would say its type.
        writer.writerow([name, predicted, *map(repr, row.tolist()), *rest])
    return lines.getvalue()
