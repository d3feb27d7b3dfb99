"""A finished trial's model written for others, and read again."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from raypatch.config import make_config
from raypatch.models.build import construct_finished, normalisation_of
from raypatch.models.families import find_family
from raypatch.models.heads import has_own_head
from raypatch.predict.choose import FinishedTrial, find_trials
from raypatch.predict.weights import load_model
from raypatch.storage.files import write_atomically
from raypatch.tasks import find_task
from raypatch.words import first_of


def export_trial(folder: Path, trial_id: str, out: Path) -> Path:
    """Write a trial's model as model.safetensors and config.json into the folder `out`.

    2D: `timm.create_model("local-dir:OUT", pretrained=True)` loads a model of timm's. 3D and own
    models, and those with another head than a linear one, such as segmentations:
    `raypatch.predict.load_exported(OUT)`, which takes all. config.json holds architecture, sizes,
    classes, the normalisation (mean, std of 0..1) and, of packed data, the rule of intensity and
    shape by which images are read. Raises ValueError when there is no such finished trial, and for
    one that is no network.
    """
    trials = {}
    for trial in find_trials(folder, stages=True).trials:
        trials[trial.result.trial_id] = trial
    if trial_id not in trials:
        raise ValueError(f"{folder} has no finished trial {trial_id!r}; it has {first_of(sorted(trials))}")
    member = trials[trial_id]
    state = load_model(member).state_dict()
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_file(state, out / "model.safetensors")
    except OSError as error:
        raise ValueError(
            f"cannot write to {out}: {error.strerror or error}; give another folder with --out",
        ) from error
    # Last, so that a folder with a config.json holds weights too.
    write_atomically(out / "config.json", json.dumps(_describe(member), indent=1).encode())
    return out


def timm_loads(member: FinishedTrial) -> bool:
    """Whether timm can load a trial's exported model: it knows no volumes, and no other head than its own."""
    knows_family = bool(find_family(member.config.model).timm_entry(member.config).layers)
    return member.dataset.dimensions == 2 and has_own_head(member.config) and knows_family


def _describe(member: FinishedTrial) -> dict[str, object]:
    """config.json: what timm reads, and under `raypatch` what load_exported needs."""
    config, facts = member.config, member.dataset
    family = find_family(config.model)
    mean, std = normalisation_of(config)
    # Without a head there are none, as timm has it too.
    outputs = 0 if config.makes_weights else find_task(facts.task).outputs(facts.classes)
    for_timm = family.timm_entry(config)
    # timm wants the name without the tag of its weights, for these are others.
    named = {"architecture": config.model.partition(".")[0]} if timm_loads(member) else {}
    return {
        **named,
        "num_classes": outputs,
        "model_args": for_timm.arguments,
        "pretrained_cfg": {
            "input_size": [3, *(config.image_size,) * facts.dimensions],
            "fixed_input_size": True,
            "mean": list(mean),
            "std": list(std),
            "num_classes": outputs,
            "label_names": list(facts.classes),
            **for_timm.layers,
        },
        "raypatch": {
            "dimensions": facts.dimensions,
            "task": facts.task,
            "input": json.loads(facts.rule) if facts.rule else None,
            "trial": json.loads(config.canonical_json()),
        },
    }


def load_exported(folder: Path) -> nn.Module:
    """Load what export_trial wrote, 2D or 3D, in evaluation mode.

    Raises ValueError when it cannot be read.
    """
    from raypatch.models.weights import read_weights_file

    try:
        description = json.loads((folder / "config.json").read_bytes())
        model = construct_finished(
            make_config(description["raypatch"]["trial"]),
            dimensions=description["raypatch"]["dimensions"],
            outputs=description["num_classes"],
        )
        model.load_state_dict(read_weights_file(folder / "model.safetensors"))
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder} is not what `raypatch export` writes: {error}") from error
    return model.eval()
