"""Use a finished run: the best trial, or an ensemble over patch sizes, on new images; a trial exported for others."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.models import VisionTransformer

from raypatch.config import TrialConfig
from raypatch.data.catalog import Split, canonical_name
from raypatch.data.inputs import read_inputs
from raypatch.files import write_atomically
from raypatch.models.build import construct
from raypatch.models.weights import normalisation
from raypatch.results import DatasetFacts, ModelFacts, SweepPaths, TrialPaths, TrialResult, read_config, read_result
from raypatch.runtime import resolve_device, resolve_precision
from raypatch.selection import goodness
from raypatch.tasks import find_task
from raypatch.training.checkpoint import load_tensors
from raypatch.training.evaluate import predict_logits


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that ran through, with what its result says of it."""

    config: TrialConfig
    paths: TrialPaths
    result: TrialResult
    dataset: DatasetFacts
    model: ModelFacts

    @property
    def figure(self) -> float:
        """Its selection figure on validation, turned so that larger is better."""
        assert self.result.val is not None, "a finished trial has validation scores"
        return goodness(self.config.selection, self.result.val[self.config.selection_metric])


def predict(
    folder: Path,
    source: Path,
    *,
    dataset: str | None,
    patch_sizes: Sequence[int] | None,
    split: Split,
    device: str,
) -> tuple[str, list[str]]:
    """Predict on new images with the best trial of each patch size, probabilities averaged.

    patch_sizes: None takes the single best trial. Best is by validation, among seeds too. split: of an .npz.
    Returns a CSV (name, predicted class or classes, one probability per class) and the ids of the trials used.
    Raises ValueError when there is no such trial or the images do not fit.
    """
    members = choose_members(find_trials(folder), dataset, patch_sizes)
    facts = members[0].dataset
    names: list[str] = []
    total = np.zeros(())
    for member in members:
        config = member.config
        names, images = read_inputs(
            source,
            split,
            dimensions=facts.dimensions,
            channels=facts.channels,
            image_size=config.image_size,
            resize=config.resize,
        )
        total = total + predict_member(member, images, device)
    return _as_csv(names, (total / len(members)).astype(np.float32), facts), [m.result.trial_id for m in members]


def predict_member(member: FinishedTrial, images: torch.Tensor, device_name: str) -> NDArray[np.float32]:
    """Probabilities (N, C) of one trial's best weights on uint8 images (N, C, *spatial).

    The trial's own images on its own kind of device give its stored probabilities to the bit.
    """
    device = resolve_device(device_name)
    if device.type == "cpu" and member.result.provenance.get("threads", "").isdigit():
        torch.set_num_threads(int(member.result.provenance["threads"]))
    mean, std = (torch.tensor(values, device=device) for values in normalisation(member.config))
    logits = predict_logits(
        load_model(member).to(device),
        images,
        device=device,
        tokens=member.model.tokens,
        mean=mean,
        std=std,
        precision=resolve_precision(member.result.precision, device),
    )
    return find_task(member.dataset.task).probabilities(logits).cpu().numpy()


def load_model(member: FinishedTrial) -> VisionTransformer:
    """The trial's model with its best weights, on the CPU. Raises ValueError when the weights are damaged."""
    best = load_tensors(member.paths.best_weights)
    if best is None:
        raise ValueError(f"{member.paths.best_weights} is missing or damaged; remove the trial folder and run it again")
    config = member.config
    model = construct(
        config.model,
        config.image_size,
        config.patch_size,
        dimensions=member.dataset.dimensions,
        outputs=len(member.dataset.classes),
    )
    model.load_state_dict(best[0])
    return model.eval()


def find_trials(folder: Path) -> list[FinishedTrial]:
    """The trials of a run folder that ran through. Raises ValueError when there are none."""
    found = []
    for paths in SweepPaths(folder).trial_folders():
        result = read_result(paths.result)
        if result is not None and result.status == "ok" and result.dataset is not None and result.model is not None:
            found.append(FinishedTrial(read_config(paths.config), paths, result, result.dataset, result.model))
    if not found:
        raise ValueError(f"{folder} has no finished trial; give a folder in which `raypatch run` finished some")
    return found


def choose_members(
    trials: Sequence[FinishedTrial], dataset: str | None, patch_sizes: Sequence[int] | None
) -> list[FinishedTrial]:
    """The best trial of each patch size, or of all, by validation.

    dataset: a name, or of an own file the name it has in the trials, file:STEM@CONTENT, or its stem alone.
    Raises ValueError where a trial is missing, or several files or selection figures are in question.
    """
    labels: dict[str, str] = {trial.config.dataset: trial.config.dataset_label for trial in trials}
    known = {*labels, *labels.values()}
    asked = dataset if dataset is None or dataset in known else canonical_name(dataset)
    fit = sorted(name for name, label in labels.items() if asked in (None, name, label))
    if not fit:
        raise ValueError(f"the run has no finished trial of {asked}; it has {', '.join(sorted(labels.values()))}")
    if len(fit) > 1:
        raise ValueError(f"the run has several such datasets; choose one with --dataset: {', '.join(fit)}")
    (wanted,) = fit
    of_dataset = [trial for trial in trials if trial.config.dataset == wanted]
    if len(figures := sorted({trial.config.selection for trial in of_dataset})) > 1:
        raise ValueError(f"the trials of {wanted} were selected by {' and '.join(figures)}: none is best of all")
    if patch_sizes is None:
        return [max(of_dataset, key=lambda trial: trial.figure)]
    members = []
    for patch_size in patch_sizes:
        candidates = [trial for trial in of_dataset if trial.config.patch_size == patch_size]
        if not candidates:
            sizes = sorted({trial.config.patch_size for trial in of_dataset})
            raise ValueError(f"no finished trial of {wanted} at patch size {patch_size}; there are {sizes}")
        members.append(max(candidates, key=lambda trial: trial.figure))
    return members


def export_trial(folder: Path, trial_id: str, out: Path) -> Path:
    """Write a trial's model as model.safetensors and config.json into the folder `out`.

    2D: `timm.create_model("local-dir:OUT", pretrained=True)` loads it. 3D: `raypatch.predict.load_exported(OUT)`,
    which also takes 2D. config.json holds architecture, sizes, classes and the normalisation (mean, std of 0..1).
    Raises ValueError when there is no such finished trial.
    """
    trials = {trial.result.trial_id: trial for trial in find_trials(folder)}
    if trial_id not in trials:
        raise ValueError(f"{folder} has no finished trial {trial_id!r}; it has {', '.join(sorted(trials)[:5])} ...")
    member = trials[trial_id]
    config, facts = member.config, member.dataset
    mean, std = normalisation(config)
    size, outputs = config.image_size, len(facts.classes)
    description = {
        "architecture": config.model.partition(".")[0],
        "num_classes": outputs,
        "model_args": {"img_size": size, "patch_size": config.patch_size},
        "pretrained_cfg": {
            "input_size": [3, *(size,) * facts.dimensions],
            "fixed_input_size": True,
            "mean": list(mean),
            "std": list(std),
            "num_classes": outputs,
            "label_names": list(facts.classes),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "raypatch": {"dimensions": facts.dimensions, "task": facts.task, "trial": json.loads(config.canonical_json())},
    }
    state = load_model(member).state_dict()
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_file(state, out / "model.safetensors")
    except OSError as error:
        raise ValueError(f"cannot write to {out}: {error.strerror or error}; give another folder with --out") from error
    write_atomically(out / "config.json", json.dumps(description, indent=1).encode())
    return out


def load_exported(folder: Path) -> VisionTransformer:
    """Load what export_trial wrote, 2D or 3D, in evaluation mode. Raises ValueError when it cannot be read."""
    from raypatch.models.weights import read_weights_file

    try:
        description = json.loads((folder / "config.json").read_bytes())
        model = construct(
            description["architecture"],
            description["model_args"]["img_size"],
            description["model_args"]["patch_size"],
            dimensions=description["raypatch"]["dimensions"],
            outputs=description["num_classes"],
        )
        model.load_state_dict(read_weights_file(folder / "model.safetensors"))
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder} is not what `raypatch export` writes: {error}") from error
    return model.eval()


def _as_csv(names: Sequence[str], probability: NDArray[np.float32], facts: DatasetFacts) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["name", "predicted", *(f"p({name})" for name in facts.classes)])
    words = find_task(facts.task).words(probability, facts.classes)
    for name, predicted, row in zip(names, words, probability, strict=True):
        writer.writerow([name, predicted, *(repr(float(value)) for value in row)])
    return lines.getvalue()
