"""How many trials of one shape train as one model of stacked weights: as the user says, or as was measured."""

from collections import Counter
from collections.abc import Sequence

from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.methods import MOST_TOGETHER, feature_method, group_key
from raypatch.models.flops import trial_facts
from raypatch.models.memory import stack_fits
from raypatch.sweep.cost.placement import WORTHWHILE
from raypatch.sweep.cost.seconds.calibration import step_kind
from raypatch.sweep.cost.seconds.calibration_file import known_calibration
from raypatch.sweep.cost.seconds.timing import Timing

MOST_STACKED = 8
"""Models of a stack at most where nobody says a number: more would hardly share more."""


def together_at_most(config: TrialConfig, options: RunOptions, timing: Timing | None) -> int:
    """Return how many trials like this one run together at most: heads on shared features, models of a stack, or 1.

    timing: what was measured of the trial; None where nothing was.
    """
    if group_key(config) is None:
        return 1
    if feature_method(config) is not None:
        return MOST_TOGETHER
    if options.stack == "off":
        return 1
    wanted = options.stack
    if wanted == "auto":
        wanted = MOST_STACKED if timing is not None and pays(timing) else 1
    info, facts = trial_facts(config, options)
    precision = resolve_precision(config.precision, resolve_device(options.device))
    while wanted > 1 and not stack_fits(config, info, facts, precision, options, wanted):
        wanted -= 1
    return wanted


def pays(timing: Timing) -> bool:
    """Whether a step was measured to be faster in a stack, by as much as is worth it."""
    return timing.stacked is not None and WORTHWHILE * timing.stacked <= timing.step


def known_together(config: TrialConfig, options: RunOptions) -> int:
    """Return the same by what was timed on this device before."""
    calibration = known_calibration(options)
    timing = None if calibration is None else calibration.timings.get(step_kind(config, options))
    return together_at_most(config, options, timing)


def could_stack(trials: Sequence[TrialConfig]) -> list[TrialConfig]:
    """Return those trials whose models have another of their shape to train with."""
    keys = {config: group_key(config) for config in trials if feature_method(config) is None}
    count = Counter(keys.values())
    return [config for config, key in keys.items() if key is not None and count[key] > 1]
