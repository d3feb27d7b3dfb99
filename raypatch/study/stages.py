"""Stages of a study: trainings that make the weights which trials start from."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from raypatch.config import TrialConfig
from raypatch.study.axes import Axis, require_known
from raypatch.trial_fields.objective import PRETRAINING

Stages = Mapping[str, Mapping[str, Any]]
"""By name the fields of each stage, besides those that it takes over from its children."""

TAKEN_OVER = (
    "dataset",
    "resolution",
    "image_size",
    "resize",
    "fold",
    "task",
    "model",
    "patch_size",
    "inflation",
    "precision",
)
"""What a stage has as the trials that start from it, unless it says another: which images, and which network.

Of a share of the training images and of the seed it knows nothing: it needs no labels, and its children share it.
"""

PREFIX = "stage:"


def check_stages(stages: Stages) -> None:
    """Raise ValueError for unknown fields, for a stage that is another method, and for stages in a circle."""
    for name, fields in stages.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise ValueError(f"stages: {name!r} must be letters, digits, - and _")
        require_known(fields, TrialConfig.model_fields, what=f"stages: {name}")
        method = fields.get("method", PRETRAINING)
        if method != PRETRAINING:
            raise ValueError(f"stages: {name} has method={method}; a stage has method={PRETRAINING}: leave it out")
        _follow(name, stages, ())


def stage_name(weights: Any, stages: Stages) -> str | None:
    """Return the stage that a study's `weights` ask for; None for others. Raises ValueError for one there is not."""
    if not isinstance(weights, str) or not weights.startswith(PREFIX) or "@" in weights:
        return None
    name = weights.removeprefix(PREFIX)
    if name not in stages:
        known = f"it has {', '.join(stages)}" if stages else "it has none: list them under `stages:`"
        raise ValueError(f"weights={weights}: there is no stage {name!r} in this study; {known}")
    return name


def stage_values(fields: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a stage's trial, for a child with these."""
    taken = {name: child[name] for name in TAKEN_OVER if name in child}
    return {**taken, "method": PRETRAINING, **fields}


def override_parts(
    stages: Stages, grid: Mapping[str, Axis], values: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Axis]]:
    """Return stages and grid with some fields set: STAGE.FIELD, or AXIS.LEVEL.FIELD of a named level.

    Raises ValueError for a part that there is not, and for several values.
    """
    changed_stages = {name: dict(fields) for name, fields in stages.items()}
    changed_grid = dict(grid)
    for key, wanted in values.items():
        part, _, field = key.rpartition(".")
        axis_name, _, level = part.partition(".")
        axis = changed_grid.get(axis_name)
        if part in changed_stages:
            fields = changed_stages[part]
        elif isinstance(axis, dict) and level in axis:
            fields = dict(axis[level])
            changed_grid[axis_name] = {**axis, level: fields}
        else:
            raise ValueError(f"{key}: {part} is neither a stage of this study nor AXIS.LEVEL of its named levels")
        if len(wanted) != 1:
            raise ValueError(f"{key}: a stage or a level has one value of a field, not {len(wanted)}; name another")
        fields[field] = wanted[0]
    return changed_stages, changed_grid


def _follow(name: str, stages: Stages, before: tuple[str, ...]) -> None:
    """Raise ValueError where a stage starts from itself, by way of others."""
    if name in before:
        raise ValueError(f"stages: {' -> '.join((*before, name))} start from each other; let one begin elsewhere")
    parent = stage_name(stages[name].get("weights"), stages)
    if parent is not None:
        _follow(parent, stages, (*before, name))
