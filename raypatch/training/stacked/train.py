"""Heads of several trials, trained together on features that they share: each product is one of all."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from raypatch.data.batches.resident import ResidentSplit
from raypatch.machine.runtime import on_threads, peak_memory
from raypatch.results import EpochRow, append_epoch
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.evaluate import find_alarm, score_logits
from raypatch.training.loop import Interrupted, Trial, TrialError, draw_order
from raypatch.training.loss import make_loss
from raypatch.training.progress import advance
from raypatch.training.stacked.member import Member
from raypatch.training.stacked.stack import Stack

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 5.0
"""How much work of a group a kill may cost. Files of each trial after each epoch would cost more than the training."""


def train_stacked(trials: Sequence[Trial]) -> Iterator[tuple[Trial, Progress | TrialError]]:
    """Train the heads of trials of one `stack_key`, each from its own checkpoint on.

    The trials share the features (`FeatureSplit.whole`). Gives each trial with its progress when it is
    over, its head with its best weights, or with the error of one that diverged. The others go on.
    The numbers are those of a trial alone up to rounding. Raises Interrupted when asked to stop.
    """
    members = [Member(trial) for trial in trials]
    logger.info("%d heads train together", len(members))
    while True:
        for member in members:
            if member.is_over:
                yield member.trial, member.finish()
        members = [member for member in members if not member.is_over]
        if not members:
            return
        # After a kill some may be behind: these catch up first.
        epochs = sorted({member.progress.epoch for member in members})
        behind = [member for member in members if member.progress.epoch == epochs[0]]
        until = epochs[1] if len(epochs) > 1 else behind[0].length.epochs
        for member, error in _train_until(behind, until):
            yield member.trial, error
            members.remove(member)


def _train_until(members: Sequence[Member], epoch: int) -> list[tuple[Member, TrialError]]:
    """Train up to an epoch, or until a trial is over or has diverged; return those that have, with their error."""
    first = members[0].trial
    # Class weights go by how many images a class has, which is the same for all.
    loss = make_loss(first.config, first.task, first.train.labels.to(first.prepared.device))
    heads = [member.head for member in members]
    stack = Stack(heads, [member.optimizer for member in members], first.config, loss)
    # Small products take longer to be divided than to be done.
    with on_threads(1) if stack.is_small else contextlib.nullcontext():
        return _train_stack(stack, members, epoch)


def _train_stack(stack: Stack, members: Sequence[Member], epoch: int) -> list[tuple[Member, TrialError]]:
    """Train as `_train_until` says."""
    saved = time.monotonic()
    while True:
        rows = _train_to_evaluation(stack, members)
        diverged = []
        for member, row in zip(members, rows, strict=True):
            if isinstance(row, TrialError):
                diverged.append((member, row))
        # All that are left are at the same epoch.
        is_there = any(member.progress.epoch >= epoch for member in members)
        ends = bool(diverged) or is_there or any(member.is_over for member in members)
        checkpoint = ends or time.monotonic() - saved > CHECKPOINT_SECONDS
        if checkpoint:
            stack.optimizer.write_back()
            saved = time.monotonic()
        for member, row in zip(members, rows, strict=True):
            if isinstance(row, TrialError):
                continue
            # On disk before the checkpoint, which must never be ahead of the rows.
            append_epoch(member.trial.paths.epochs, row, sync=checkpoint)
            if checkpoint:
                member.save()
            member.trial.on_epoch(row)
        if ends:
            return diverged


def _train_to_evaluation(stack: Stack, members: Sequence[Member]) -> list[EpochRow | TrialError]:
    """Train each trial to its next evaluation; return its row, or the error of a trial that diverged."""
    first, length = members[0].trial, members[0].length
    done = members[0].progress.epoch
    until = length.next_evaluation(done)
    started = time.perf_counter()
    losses = torch.zeros(len(members), device=first.prepared.device)
    images = 0
    for epoch in range(done, until):
        losses += take_steps(stack, members, epoch)
        images += min(len(first.train), (length.steps_at(epoch + 1) - length.steps_at(epoch)) * first.config.batch_size)
    means = (losses / images).tolist()
    # Each trial counts its share of the time, so that their sum is what was spent.
    train_seconds = (time.perf_counter() - started) / len(members)
    every_logits = stack.logits(first.val.images, first.prepared.device)
    rows: list[EpochRow | TrialError] = []
    for place, member in enumerate(members):
        loss, logits = means[place], every_logits[place]
        if not (math.isfinite(loss) and logits.isfinite().all()):
            lr = member.config.lr
            rows.append(TrialError(f"training diverged in epoch {until}: its loss is {loss}; lower lr={lr}"))
            continue
        scores = score_logits(logits, first.val.labels, first.task, final=False)
        row = EpochRow(
            epoch=until,
            train_loss=loss,
            val=dict(scores),
            lr=member.set_learning_rate(length.steps_at(until) - 1),
            seconds=train_seconds,
            images_per_second=images / train_seconds,
            peak_memory_bytes=peak_memory(first.prepared.device),
            step=length.steps_at(until),
            alarm=find_alarm(logits, first.val.labels, first.task, scores),
        )
        member.progress = advance(member.progress, row, member.config)
        if member.progress.best_epoch == row.epoch:
            for name, parameter in stack.parameters.items():
                member.best[name] = parameter.detach()[place].clone()
        rows.append(row)
    validation_seconds = (time.perf_counter() - started) / len(members) - train_seconds
    return [_with_seconds(row, validation_seconds) for row in rows]


def _with_seconds(row: EpochRow | TrialError, more: float) -> EpochRow | TrialError:
    """The row with the seconds of the validation added."""
    if isinstance(row, TrialError):
        return row
    return row.model_copy(update={"seconds": row.seconds + more})


def take_steps(stack: Stack, members: Sequence[Member], epoch: int) -> Tensor:
    """Take the steps of one epoch, counted from 0; return the sum of the images' losses of each trial, (T,).

    Raises Interrupted when asked to stop.
    """
    first, length, config = members[0].trial, members[0].length, members[0].config
    device, whole = first.prepared.device, _whole_features(first.train)
    rows, labels = [], []
    for member in members:
        # As in a trial that trains alone.
        order = draw_order(member.trial, epoch)
        rows.append(member.trial.train.index[order.cpu()])
        labels.append(member.trial.train.labels[order.to(member.trial.train.labels.device)])
    every_row = torch.stack(rows).to(whole.device)
    every_label = torch.stack(labels).to(device)
    losses = torch.zeros(len(rows), device=device)
    first_step, last_step = length.steps_at(epoch), length.steps_at(epoch + 1)
    for number in range(first_step, last_step):
        if first.should_stop():
            raise Interrupted
        if number == first_step or _rates_move_by_step(members):
            for member in members:
                member.set_learning_rate(number)
            stack.optimizer.read_rates()
        start = (number - first_step) * config.batch_size
        batch = every_row[:, start : start + config.batch_size]
        features = whole[batch].to(device)  # (T, B, ...)
        losses += stack.step(features, every_label[:, start : start + config.batch_size]) * batch.shape[1]
    return losses


def _rates_move_by_step(members: Sequence[Member]) -> bool:
    """Whether a learning rate may change within an epoch."""
    for member in members:
        config = member.config
        if config.steps is not None or config.step_steps is not None or config.warmup_steps:
            return True
    return False


def _whole_features(train: ResidentSplit) -> Tensor:
    """The features of all training images, of which each trial takes its own."""
    whole: Tensor = getattr(train, "whole", train.images)
    return whole
