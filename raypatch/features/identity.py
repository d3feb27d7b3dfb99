"""What stored features are of: trials that agree in it share one pass of the backbone."""

import hashlib
import json
from typing import Any

from raypatch.config import TrialConfig, field_facts
from raypatch.machine.runtime import Precision
from raypatch.models.heads import BODY_FIELDS, feature_kind

OF_NO_MATTER = ("train_fraction", "method", "head", "augmentation", "precision")
"""Factors that change no feature: a share is taken of the features of all training images,
a head stands on them, and the precision enters as what it means on the device.
"""


def feature_fields(config: TrialConfig, precision: Precision) -> dict[str, Any]:
    """Return what the features of a trial depend on, by name; a field at its default is left out.

    Whatever else is a factor counts, so that a field that a later version adds separates features
    rather than mixing them.
    """
    changed = config.model_dump(exclude_defaults=True)
    fields: dict[str, Any] = {"features": feature_kind(config), "precision": precision}
    for name, value in changed.items():
        if field_facts(name).role in ("block", "factor") and name not in OF_NO_MATTER:
            fields[name] = value
    if config.weights == "random":
        # The seed draws the backbone too.
        fields["seed"] = config.seed
    return fields


def feature_key(config: TrialConfig, precision: Precision) -> str:
    """Return the name of a trial's features: readable, with a hash of what they depend on."""
    digest = _digest(feature_fields(config, precision))
    return f"{config.dataset_label}-{config.model.replace(':', '.')}-{digest}"


def backbone_key(config: TrialConfig, *, dimensions: int) -> str:
    """Return the name of a trial's frozen backbone: many datasets may share one."""
    fields = {}
    for name in (*BODY_FIELDS, "weights", "inflation"):
        value = getattr(config, name)
        # A stride of its own is newer than stored backbones, whose names must not change.
        if name != "output_stride" or value is not None:
            fields[name] = value
    fields["dimensions"] = dimensions
    if config.weights == "random":
        # Drawn beside a head whose size follows from the labels.
        fields |= {"seed": config.seed, "dataset": config.dataset, "task": config.task}
    return f"{config.model.replace(':', '.')}-{_digest(fields)}"


def _digest(fields: dict[str, Any]) -> str:
    named = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(named.encode()).hexdigest()[:12]
