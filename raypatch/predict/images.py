"""New images predicted by trials of a finished run, probabilities averaged."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from raypatch.data.catalog import Split
from raypatch.data.inputs import InputRule, read_inputs
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.models.build import BuiltModel, construct
from raypatch.models.families import find_family
from raypatch.models.prepared import place_model
from raypatch.predict.choose import FinishedTrial, choose_members, find_trials
from raypatch.results import DatasetFacts
from raypatch.tasks import find_task
from raypatch.training.checkpoint import load_tensors


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
        # Read for each member: levels may differ in the size that their models see.
        names, images = read_inputs(
            source,
            split,
            dimensions=facts.dimensions,
            channels=facts.channels,
            image_size=config.image_size,
            resize=config.resize,
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
    built = BuiltModel(load_model(member), means, deviations)
    precision = resolve_precision(member.result.precision, device)
    prepared = place_model(member.config, built, member.model, device, precision)
    probability = find_task(member.dataset.task).probabilities(prepared.logits(images))
    return probability.cpu().numpy()


def load_model(member: FinishedTrial) -> nn.Module:
    """Return the trial's model with its best weights, on the CPU.

    Raises ValueError when the weights are damaged.
    """
    best = load_tensors(member.paths.best_weights)
    if best is None:
        raise ValueError(f"{member.paths.best_weights} is missing or damaged; remove the trial folder and run it again")
    outputs = find_task(member.dataset.task).outputs(member.dataset.classes)
    model = construct(member.config, dimensions=member.dataset.dimensions, outputs=outputs)
    model.load_state_dict(best[0])
    return model.eval()


def _as_csv(names: Sequence[str], probability: NDArray[np.float32], facts: DatasetFacts) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["name", "predicted", *map("p({})".format, facts.classes)])
    words = find_task(facts.task).words(probability, facts.classes)
    for name, predicted, row in zip(names, words, probability, strict=True):
        # tolist: a float of Python's prints all its digits, numpy's would say its type.
        writer.writerow([name, predicted, *map(repr, row.tolist())])
    return lines.getvalue()
