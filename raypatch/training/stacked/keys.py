"""Which trials may train together."""

from collections.abc import Hashable

from torch import nn

from raypatch.config import TrialConfig
from raypatch.training.optim import HEAD

FREE_FIELDS = frozenset(
    (
        *("lr", "head_lr", "encoder_lr", "weight_decay", "min_lr"),
        *("schedule", "head_schedule", "step_epochs", "step_steps", "step_gamma", "plateau_patience"),
        *("warmup_epochs", "warmup_steps", "patience", "selection", "seed"),
    )
)
"""Fields in which trials that train together may differ."""


def stack_key(config: TrialConfig) -> Hashable | None:
    """Return what trials share whose heads may train together; None for a trial that must train alone."""
    # A loss of one's own may do what cannot be done for several trials at once.
    if config.task is not None and ":" in config.task:
        return None
    # And a head that is not to learn is refused, which must hit that trial alone.
    if config.base_rates[HEAD] == 0:
        return None
    fields = config.model_dump(exclude=set(FREE_FIELDS))
    if config.weights == "random":
        # The features are those of the seed's backbone.
        fields["seed"] = config.seed
    return tuple(sorted((name, str(value)) for name, value in fields.items()))


def can_stack(head: nn.Module) -> bool:
    """Return whether heads like this one train alike together and alone: nothing in them is random or counts."""
    for module in head.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return False
    return not list(head.buffers())
