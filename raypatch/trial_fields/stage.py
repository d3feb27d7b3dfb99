"""Weights that another trial of the same run makes: how they stand in a config."""

import re

STAGE_WEIGHTS = re.compile(r"stage:(?P<name>[A-Za-z0-9_-]{1,64})@(?P<trial>[A-Za-z0-9_.-]{1,200})")
"""stage:NAME@TRIAL: the stage of the study, and the trial that made the weights, known before it runs."""


def stage_of(weights: str) -> str | None:
    """Return the name of the stage that makes the weights; None for weights that are there from the start."""
    found = STAGE_WEIGHTS.fullmatch(weights)
    return found["name"] if found else None


def parent_of(weights: str) -> str | None:
    """Return the id of the trial that makes the weights; None for weights that are there from the start."""
    found = STAGE_WEIGHTS.fullmatch(weights)
    return found["trial"] if found else None


def without_trial(value: object) -> object:
    """Return what a study says of weights, stage:NAME, whichever trial makes them; any other value as it is."""
    name = stage_of(value) if isinstance(value, str) else None
    return value if name is None else f"stage:{name}"
