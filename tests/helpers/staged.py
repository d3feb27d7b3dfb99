"""A study with a stage, small enough for a test."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from raypatch.results import SweepPaths, read_result
from raypatch.study import Study

from tiny import tiny_study

STAGE: dict[str, Any] = {
    "weights": "random",
    "epochs": 2,
    "batch_size": 8,
    "lr": 1e-3,
    "schedule": "cosine",
    "local_views": 1,
    "projection_width": 16,
    "prototypes": 32,
}


def staged_study(data: Path | list[Path], *, stage: dict[str, Any] | None = None, **axes: object) -> Study:
    """Random weights against those of a stage, two seeds, patch size 4."""
    start = {"random": {"weights": "random"}, "in-domain": {"weights": "stage:dino"}}
    settings: dict[str, Any] = {"start": start, "patch_size": [4], "seed": [0, 1]}
    plain = tiny_study(data, **(settings | axes))
    content = plain.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    content["fixed"].pop("weights", None)
    stages = {"dino": STAGE | (stage or {})}
    return Study.model_validate({**content, "compare": ["start"], "stages": stages})


def staged_bits(sweep: SweepPaths) -> dict[str, bytes]:
    """All that must be the same bits however a sweep ran, stages included: by trial its scores and its weights."""
    found = {}
    for trial in sweep.trial_folders():
        result = read_result(trial.result)
        assert result is not None, trial.folder
        weights = sorted(load_file(trial.best_weights).items())
        found[trial.folder.name] = result.model_dump_json(include={"status", "epochs", "val", "test"}).encode()
        found[f"{trial.folder.name} weights"] = b"".join(tensor.numpy().tobytes() for _, tensor in weights)
    return found
