"""What a kind of step takes that was not timed: scaled, by its arithmetic, from one that was."""

import math
from collections import defaultdict
from dataclasses import dataclass

from raypatch.config import RunOptions, TrialConfig
from raypatch.methods import feature_method, find_method
from raypatch.models.flops import trial_facts
from raypatch.sweep.cost.seconds.head_timing import images_of_pass, pass_kind
from raypatch.sweep.cost.seconds.step_timing import images_of_step
from raypatch.sweep.cost.seconds.timing import Timing

LEAST_CALLS = 2
"""How often whatever is timed is called at least, the first time to warm up."""


@dataclass(frozen=True)
class _Source:
    gflops: float
    scored: int
    timing: Timing


class Timed:
    """The kinds that were timed so far, and what follows from them for the others."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        # Methods do other things with the same arithmetic.
        self._by_method: dict[tuple[str, bool], list[_Source]] = defaultdict(list)
        self._passes: dict[tuple[object, ...], float] = {}

    def add(self, config: TrialConfig, timing: Timing) -> None:
        """Scale from this one too from now on."""
        source = _Source(step_gflops(config, self._options), self._scored(config), timing)
        self._by_method[_method_of(config)].append(source)
        if feature_method(config) is not None:
            self._passes[pass_kind(config, self._options)] = timing.evaluation

    def passing(self, config: TrialConfig) -> float | None:
        """Seconds of an image through the frozen backbone of a trial; None where they were not timed."""
        return None if feature_method(config) is None else self._passes.get(pass_kind(config, self._options))

    def scale(self, config: TrialConfig) -> Timing | None:
        """The timing of the nearest arithmetic, scaled to that of `config`; None where none was timed of its method."""
        sources = self._by_method[_method_of(config)]
        if not sources:
            return None
        gflops = step_gflops(config, self._options)
        nearest = min(sources, key=lambda source: abs(math.log(gflops / source.gflops)))
        scale = gflops / nearest.gflops
        found: dict[str, object] = {"scaled": True, "stacked": None, "evaluation": scale * nearest.timing.evaluation}
        if feature_method(config) is None:
            found["step"] = scale * nearest.timing.step
        else:
            # Its step is the head's, which does not grow with the backbone.
            found["scoring"] = nearest.timing.scoring * self._scored(config) / nearest.scored
        return nearest.timing.model_copy(update=found)

    def expected_seconds(self, config: TrialConfig) -> float | None:
        """About how long it takes to time this kind; None where nothing tells."""
        timing = self.scale(config)
        if timing is None:
            return None
        if feature_method(config) is None:
            images = images_of_step(config, self._options)
            once = images * (timing.step / config.batch_size + timing.evaluation)
        else:
            images = 0 if self.passing(config) is not None else images_of_pass(config, self._options)
            once = images * timing.evaluation + timing.scoring
        return LEAST_CALLS * once

    def _scored(self, config: TrialConfig) -> int:
        """What the time for scoring a trial on stored features grows with."""
        info, _ = trial_facts(config, self._options)
        train, val, _ = info.counts
        # Where nothing trains, each image is compared with those of train.
        trains = feature_method(config) is None or find_method(config.method).weight_copies
        return val if trains else val * train


def step_gflops(config: TrialConfig, options: RunOptions) -> float:
    """What a step is compared by: 2 x multiply-accumulates of a forward pass over its batch, in 1e9."""
    return config.batch_size * trial_facts(config, options)[1].gflops


def _method_of(config: TrialConfig) -> tuple[str, bool]:
    return config.method, feature_method(config) is not None
