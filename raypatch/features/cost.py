"""What stored features cost on disk."""

import math

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.features.identity import backbone_key, feature_key
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.models.families import find_family
from raypatch.models.flops import count_outputs
from raypatch.models.heads import feature_shape
from raypatch.results import ModelFacts


def shared_bytes(config: TrialConfig, info: DatasetInfo, facts: ModelFacts, options: RunOptions) -> dict[str, int]:
    """Return the bytes of what a trial shares with others, by name: features of all splits, and the backbone."""
    shape = feature_shape(
        config, find_family(config.model), dimensions=info.dimensions, outputs=count_outputs(config, info)
    )
    precision = resolve_precision(config.precision, resolve_device(options.device))
    return {
        feature_key(config, precision): 4 * math.prod(shape) * sum(info.counts),
        backbone_key(config, dimensions=info.dimensions): 4 * facts.parameters,
    }
