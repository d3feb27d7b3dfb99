"""Trials that train as one model of stacked weights, each with its own files."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from raypatch.models.attention import choose_attention
from raypatch.models.memory import stack_fits
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.checkpoints.resume import resume
from raypatch.training.checkpoints.writer import CheckpointWriter
from raypatch.training.loop import (
    Interrupted,
    Taken,
    Trial,
    TrialError,
    draw_augmentation,
    draw_order,
    end_epochs,
    last_rate,
    load_best,
    train_epochs,
)
from raypatch.training.loss import make_loss
from raypatch.training.optim import learning_rates, make_optimizer, set_learning_rates
from raypatch.training.progress import is_over
from raypatch.training.stacked_models.rows import StackedModels
from raypatch.training.stacked_models.step import make_stacked_step
from raypatch.training.steps.step import TrainingStep
from raypatch.trial_fields.length import Length, training_length

logger = logging.getLogger(__name__)

SetTrainingMode = Callable[[Trial], None]
Outcome = Progress | TrialError
"""What comes of a trial: how far it got, or why it could not."""


@dataclass(eq=False)
class Member:
    """A trial of a stack, and how far it is."""

    trial: Trial
    length: Length
    optimizer: torch.optim.Optimizer
    progress: Progress
    rates: tuple[float, float] | None = None

    @property
    def is_over(self) -> bool:
        return is_over(self.progress, self.trial.config, self.length)

    def set_learning_rate(self, step: int) -> None:
        """Set the learning rates of a step, where they are other than before."""
        rates = learning_rates(self.trial.config, self.length, step, self.progress.reductions)
        if rates != self.rates:
            set_learning_rates(self.optimizer, rates)
            self.rates = rates


def train_models(trials: Sequence[Trial], set_training_mode: SetTrainingMode) -> Iterator[tuple[Trial, Outcome]]:
    """Train the models of trials of one `models_key` as one, each from its own checkpoint on.

    Gives each trial with its progress when it is over, its model with its best weights, or with the error of one
    that diverged. The others go on; the last one trains alone, as all do whose models cannot be stacked. The numbers
    are those of a trial alone up to rounding. Raises Interrupted when asked to stop.
    """
    members = list(map(_join, trials))
    if len(members) > 1 and _can_stack(members, set_training_mode):
        logger.info("%d models train as one", len(members))
        while len(members) > 1:
            for member, outcome in _train_together(members, set_training_mode):
                members.remove(member)
                yield member.trial, outcome
    for member in members:
        trial = member.trial
        try:
            yield trial, train_epochs(trial, partial(set_training_mode, trial))
        except TrialError as error:
            yield trial, error


def _join(trial: Trial) -> Member:
    prepared = trial.prepared
    length = training_length(trial.config, len(trial.train))
    optimizer = make_optimizer(prepared.model, trial.config, prepared.head)
    progress = resume(trial.paths, prepared.model, optimizer, length)
    if progress.epoch == 0:
        choose_attention(prepared, trial.config.batch_size)
    return Member(trial, length, optimizer, progress)


def _can_stack(members: Sequence[Member], set_training_mode: SetTrainingMode) -> bool:
    """Whether memory has room for all, and torch can do what the model does for several at once."""
    first = members[0].trial
    config, facts, precision = first.config, first.prepared.facts, first.prepared.precision
    if not stack_fits(config, first.info, facts, precision, first.options, len(members)):
        logger.warning("a stack of %d models does not fit in memory: each trains alone", len(members))
        return False
    set_training_mode(first)
    stack = StackedModels([member.trial.prepared.model for member in members], [False] * len(members))
    # Statistics of a batch need two images.
    images = first.train.take(torch.arange(min(2, len(first.train)), device=first.train.images.device))[0]
    inputs = first.prepared.inputs(images).unsqueeze(1)
    try:
        stack.rehearse(inputs.expand(-1, len(members), *inputs.shape[2:]), first.prepared.precision)
    except (RuntimeError, ValueError) as error:
        logger.warning("models such as %s cannot be stacked: each trains alone (%s)", first.config.model, error)
        return False
    return True


def _train_together(members: Sequence[Member], set_training_mode: SetTrainingMode) -> list[tuple[Member, Outcome]]:
    """Train until some are over or have diverged, and all have got as far; return these."""
    while True:
        lowest = min(member.progress.epoch for member in members)
        # A kill between two checkpoints leaves some behind by an evaluation or more.
        behind = [member for member in members if member.progress.epoch == lowest]
        over = [member for member in members if member.is_over]
        if over and len(behind) == len(members):
            for member in over:
                load_best(member.trial)
            return [(member, member.progress) for member in over]
        set_training_mode(members[0].trial)
        step, stack = _make_step(members, behind)
        failed = _train_behind(members, behind, step)
        stack.release()
        if failed:
            return failed


def _make_step(members: Sequence[Member], behind: Sequence[Member]) -> tuple[TrainingStep, StackedModels]:
    """The step of a stack in which those that are behind move.

    The others go along without a step: the products have the shape that they had before a kill, and so the bits.
    """
    first = members[0].trial
    # Class weights go by how many images a class has, which is the same for all.
    loss = make_loss(first.config, first.task, first.train.labels.to(first.prepared.device))
    asked = first.options.micro_batch
    return make_stacked_step(
        [member.trial.prepared for member in members],
        [member.optimizer if member in behind else None for member in members],
        loss,
        first.config,
        micro_batch=first.config.batch_size if asked == "auto" else asked,
    )


def _train_behind(
    members: Sequence[Member], behind: Sequence[Member], step: TrainingStep
) -> list[tuple[Member, Outcome]]:
    """Train those that are behind up to the next ones, or until one is over; return those that have diverged."""
    ahead = [member.progress.epoch for member in members if member not in behind]
    failed: list[tuple[Member, Outcome]] = []
    with contextlib.ExitStack() as files:
        writers = {member: files.enter_context(CheckpointWriter(member.trial.paths)) for member in behind}
        while True:
            for member, taken in zip(members, _take_epochs(members, behind[0], step), strict=True):
                if member not in behind:
                    continue
                try:
                    member.progress = end_epochs(member.trial, member.length, member.progress, taken, writers[member])
                except TrialError as error:
                    failed.append((member, error))
            left = [member for member in behind if member not in dict(failed)]
            ends = not left or bool(failed) or left[0].progress.epoch in ahead or any(each.is_over for each in left)
            for member in left:
                # At the end all of them, for the next ones go on from there, perhaps alone.
                writers[member].keep(member.trial.prepared.model, member.optimizer, member.progress, is_over=ends)
            if ends:
                return failed


def _take_epochs(members: Sequence[Member], behind: Member, step: TrainingStep) -> list[Taken]:
    """Train from where those behind stand to their next evaluation."""
    started = time.perf_counter()
    until = behind.length.next_evaluation(behind.progress.epoch)
    losses = torch.zeros(len(members), device=step.prepared.device)
    images = 0
    for epoch in range(behind.progress.epoch, until):
        epoch_losses, seen = _take_steps(members, step, behind.length, epoch)
        losses += epoch_losses
        images += seen
    means = (losses / images).tolist()
    # Each trial counts its share of the time, so that their sum is what was spent.
    seconds = (time.perf_counter() - started) / len(members)
    taken = []
    for member, loss in zip(members, means, strict=True):
        lr = last_rate(member.trial, member.optimizer, member.length, until, member.progress.reductions)
        taken.append(Taken(until, loss, images, lr, seconds))
    return taken


def _take_steps(members: Sequence[Member], step: TrainingStep, length: Length, epoch: int) -> tuple[Tensor, int]:
    """Take the steps of one epoch, counted from 0; return the sum of the images' losses (S,), and how many these were.

    Each trial draws its own order and augmentation, as alone. Raises Interrupted when asked to stop.
    """
    size, should_stop = members[0].trial.config.batch_size, members[0].trial.should_stop
    orders = torch.stack([draw_order(member.trial, epoch) for member in members], dim=1)  # (N, S)
    drawn = [draw_augmentation(member.trial, epoch) for member in members]
    parameters = torch.stack([each for each in drawn if each is not None], dim=1) if drawn[0] is not None else None
    losses = torch.zeros(len(members), device=step.prepared.device)
    seen = 0
    first, last = length.steps_at(epoch), length.steps_at(epoch + 1)
    for number in range(first, last):
        if should_stop():
            raise Interrupted
        for member in members:
            member.set_learning_rate(number)
        start = (number - first) * size
        rows = orders[start : start + size]
        images, labels = _take_images(members, rows)
        losses += step(images, labels, None if parameters is None else parameters[start : start + size]) * len(rows)
        seen += len(rows)
    return losses, seen


def _take_images(members: Sequence[Member], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, S, C, *spatial) and labels (B, S) or (B, S, L) of rows (B, S) of each trial's own."""
    splits = [member.trial.train for member in members]
    if all(split is splits[0] for split in splits):
        images, labels = splits[0].take(rows.flatten())
        return images.unflatten(0, rows.shape), labels.unflatten(0, rows.shape)
    taken = [split.take(rows[:, place]) for place, split in enumerate(splits)]
    every_image, every_label = zip(*taken, strict=True)
    return torch.stack(every_image, dim=1), torch.stack(every_label, dim=1)
