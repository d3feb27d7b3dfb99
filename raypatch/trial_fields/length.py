"""How long a training is, in epochs, steps and evaluations; and how far along it is."""

import math
from dataclasses import dataclass

from raypatch.trial_fields.optimisation import OptimisationFields


@dataclass(frozen=True)
class Length:
    """A training's length.

    epochs: the last may be cut short. every: epochs from one evaluation to the next.
    """

    steps_per_epoch: int
    steps: int
    epochs: int
    every: int

    def next_evaluation(self, epoch: int) -> int:
        """Return the epoch whose end is the next to be evaluated, when `epoch` are completed."""
        due = (epoch // self.every + 1) * self.every
        return min(due, self.epochs)

    def evaluations(self) -> list[int]:
        """Return the epochs after which there is an evaluation."""
        return [*range(self.every, self.epochs, self.every), self.epochs]

    def steps_at(self, epoch: int) -> int:
        """Return the steps that are taken when `epoch` are completed."""
        return min(epoch * self.steps_per_epoch, self.steps)


def training_length(config: OptimisationFields, images: int) -> Length:
    """Return the length of a training on so many images.

    Raises ValueError where no batch is full that must be, and where the warm-up never ends.
    """
    steps_per_epoch = images // config.batch_size if config.drop_last else math.ceil(images / config.batch_size)
    if steps_per_epoch == 0:
        raise ValueError(
            f"drop_last leaves no step: batch_size={config.batch_size} is above the {images} training images;"
            " lower it, or leave drop_last out"
        )
    epochs = config.epochs if config.steps is None else math.ceil(config.steps / steps_per_epoch)
    steps = epochs * steps_per_epoch if config.steps is None else config.steps
    if config.warmup_steps >= steps:
        raise ValueError(
            f"warmup_steps={config.warmup_steps} must be below the training's {steps} steps, {epochs} epochs of"
            f" {steps_per_epoch}"
        )
    every = int(config.eval_every) if config.eval_every >= 1 else max(1, int(config.eval_every * epochs))
    return Length(steps_per_epoch, steps, epochs, every)


def share_done(config: OptimisationFields, epoch: int, step: int) -> float:
    """Return the share of a training that is over after so many epochs and steps, early stopping aside."""
    return epoch / config.epochs if config.steps is None else step / config.steps


def share_of_row(config: OptimisationFields, epoch: int, step: int) -> float:
    """Return the share of a training from one evaluation to the next, by the epochs and steps at one of them."""
    of_epoch = share_done(config, epoch, step) / epoch
    return of_epoch * config.eval_every if config.eval_every >= 1 else max(of_epoch, config.eval_every)


def words_done(config: OptimisationFields, epoch: int, step: int) -> str:
    """Return how far a training is, as `3/100`, or `250/15000 steps`."""
    return f"{epoch}/{config.epochs}" if config.steps is None else f"{step}/{config.steps} steps"
