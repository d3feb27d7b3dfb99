"""Which trials may train as one model of stacked weights."""

from collections.abc import Hashable

from raypatch.config import TrialConfig
from raypatch.tasks import reads_masks
from raypatch.training.stacked.keys import FREE_FIELDS


def models_key(config: TrialConfig) -> Hashable | None:
    """Return what trials share whose models may train together; None for a trial that must train alone.

    They may differ in seed, learning rates and what else each optimizer has for itself.
    """
    # A loss of one's own may do what cannot be done for several trials at once.
    if config.task is not None and ":" in config.task:
        return None
    # The head of masks has dropout, which would draw otherwise.
    if reads_masks(config.task):
        return None
    shared = config.model_dump(exclude=set(FREE_FIELDS))
    # What is frozen in one has to be frozen in all.
    frozen = tuple(rate == 0 for rate in config.base_rates)
    return frozen, *sorted((name, str(value)) for name, value in shared.items())
