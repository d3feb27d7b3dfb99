"""New images predicted by trials of a finished run, probabilities averaged."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.data.catalog import Split
from raypatch.data.inputs import InputRule, read_inputs
from raypatch.features.extract import extract_features
from raypatch.features.head import place_head
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.models.build import BuiltModel
from raypatch.models.families import find_family
from raypatch.models.heads import feature_kind
from raypatch.models.prepared import place_model
from raypatch.predict.choose import FinishedTrial, choose_members, find_trials
from raypatch.predict.weights import load_parts
from raypatch.results import DatasetFacts
from raypatch.tasks import find_task


def predict(
    folder: Path,
    source: Path,
    *,
    dataset: str | None,
    levels: Sequence[str] | None,
    split: Split,
    device: str,
) -> tuple[str, list[str]]:
    """Predict on new images with the best trial of each level, probabilities averaged.

    levels: of what the run compares, FACTOR=LEVEL where that is several factors; None takes the
    single best trial. Best is by validation, among seeds too. split: of an .npz. Returns a CSV
    (name, predicted class or classes, one probability per class) and the ids of the trials used.
    Raises ValueError when there is no such trial or the images do not fit.
    """
    members = choose_members(find_trials(folder), dataset, levels)
    facts = members[0].dataset
    names: list[str] = []
    total = np.zeros(())
    for member in members:
        config = member.config
        # Read for each member: levels may differ in the size that their models see. One that was trained on a
        # file of another resolution sees new images at that resolution first, as it saw its own.
        is_resolved = config.resolution is not None
        names, images = read_inputs(
            source,
            split,
            dimensions=facts.dimensions,
            channels=facts.channels,
            image_size=config.resolution or config.image_size,
            resize="bilinear" if is_resolved else config.resize,
            rule=InputRule.from_json(facts.rule) if facts.rule else None,
        )
        total = total + predict_member(member, images, device)
    mean = (total / len(members)).astype(np.float32)
    trial_ids = [member.result.trial_id for member in members]
    return _as_csv(names, mean, facts), trial_ids


def predict_member(
    member: FinishedTrial,
    images: torch.Tensor,
    device_name: str,
) -> NDArray[np.float32]:
    """Probabilities (N, C) of one trial's best weights on uint8 images (N, C, *spatial).

    The trial's own images on its own kind of device give its stored probabilities to the bit.
    """
    device = resolve_device(device_name)
    # torch divides its sums by its threads, which shows in the last bits.
    threads = member.result.provenance.get("threads", "")
    if device.type == "cpu" and threads.isdigit():
        torch.set_num_threads(int(threads))
    means, deviations = find_family(member.config.model).normalisation(member.config)
    precision = resolve_precision(member.result.precision, device)
    model, head = load_parts(member)
    prepared = place_model(member.config, BuiltModel(model, means, deviations), member.model, device, precision)
    if head is None:
        logits = prepared.logits(images)
    else:
        parts = extract_features(prepared, images, feature_kind(member.config))
        logits = place_head(head, prepared).logits(torch.cat(list(parts)))
    probability = find_task(member.dataset.task).probabilities(logits)
    return probability.cpu().numpy()


def _as_csv(names: Sequence[str], probability: NDArray[np.float32], facts: DatasetFacts) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["name", "predicted", *map("p({})".format, facts.classes)])
    words = find_task(facts.task).words(probability, facts.classes)
    for name, predicted, row in zip(names, words, probability, strict=True):
        # tolist: a float of Python's prints all its digits, numpy's would say its type.
        writer.writerow([name, predicted, *map(repr, row.tolist())])
    return lines.getvalue()
