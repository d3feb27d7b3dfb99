"""What goes along with the steps of a pretraining; pure functions of the step, so that resuming needs no state."""

import math
from dataclasses import dataclass

from raypatch.config import TrialConfig
from raypatch.trial_fields.length import Length


@dataclass(frozen=True)
class Moment:
    """Where a pretraining stands. step, epoch: counted from 0. length: of the whole."""

    step: int
    epoch: int
    length: Length


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Half a cosine from `first` at step 0 towards `last`, which it would reach at `steps`."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * step / steps))


def learning_rate(config: TrialConfig, moment: Moment) -> float:
    """A linear rise over the warm-up, then a cosine to min_lr, or constant; step by step."""
    length = moment.length
    warm_up = config.warmup_steps or length.steps_at(config.warmup_epochs)
    if moment.step < warm_up:
        return config.lr * (moment.step + 1) / (warm_up + 1)
    if config.schedule == "constant":
        return config.lr
    return cosine(config.lr, config.min_lr, moment.step - warm_up, length.steps - warm_up)


def weight_decay(config: TrialConfig, moment: Moment) -> float:
    """A cosine from weight_decay to last_weight_decay."""
    if config.last_weight_decay is None:
        return config.weight_decay
    return cosine(config.weight_decay, config.last_weight_decay, moment.step, moment.length.steps)


def teacher_momentum(config: TrialConfig, moment: Moment) -> float:
    """A cosine from teacher_momentum to 1: the teacher follows the student ever more slowly."""
    return cosine(config.teacher_momentum, 1.0, moment.step, moment.length.steps)


def teacher_temperature(config: TrialConfig, epoch: int) -> float:
    """A line from first_temperature to teacher_temperature over temperature_epochs, epoch by epoch."""
    if epoch + 1 >= config.temperature_epochs:
        return config.teacher_temperature
    share = epoch / (config.temperature_epochs - 1)
    return config.first_temperature + share * (config.teacher_temperature - config.first_temperature)
