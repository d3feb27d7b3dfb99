"""What tells the trials of a sweep apart beyond their ids, which hold dataset, patch size and seed alone."""

from collections.abc import Callable

from raypatch.config import TrialConfig
from raypatch.factors import word_value
from raypatch.results import SweepRecord

IN_ID = ("dataset", "patch_size", "seed")


def what_varies(record: SweepRecord) -> Callable[[TrialConfig], str]:
    """Return what words the fields of a trial that differ within its sweep: `lr=0.001 method=linear_probe`.

    A named level stands for the fields that it sets: `ViT-S/16`. Empty where nothing differs but what
    an id says.
    """
    # A search has drawn few trials at first: those at the ends of its ranges differ as all of them may.
    trials = [*record.trials, *(record.search.extremes if record.search else ())]
    # What makes weights differs from the others in nearly everything.
    trials = [config for config in trials if not config.makes_weights]
    axes = [factor for factor in record.factors if factor.name not in TrialConfig.model_fields]
    worded: set[str] = set(IN_ID)
    for axis in axes:
        worded |= axis.fields
    varied = []
    for name in TrialConfig.model_fields:
        values = {repr(getattr(config, name)) for config in trials}
        if len(values) > 1 and name not in worded:
            varied.append(name)

    def describe(config: TrialConfig) -> str:
        if config.makes_weights:
            return "makes weights"
        words = [axis.level_of(config) or "" for axis in axes]
        words += [f"{name}={word_value(name, getattr(config, name))}" for name in varied]
        return " ".join(filter(None, words))

    return describe


def short_id(config: TrialConfig) -> str:
    """Return the id without its hash, which a folder needs and a reader does not: breastmnist-p4-s0."""
    return config.trial_id().rpartition("-")[0]
