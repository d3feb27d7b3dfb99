"""Pretraining: a network learns from the training images without their labels; its weights are what comes of it."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from raypatch.config import TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.machine.runtime import generator, peak_memory
from raypatch.models.memory import fit_memory
from raypatch.models.prepared import PreparedModel
from raypatch.objectives import Learner, find_objective
from raypatch.objectives.neighbours import neighbour_logits
from raypatch.objectives.schedules import Moment, learning_rate
from raypatch.objectives.step import PretrainingStep
from raypatch.results import EpochRow, append_epoch
from raypatch.training.checkpoints.checkpoint import Progress, save_tensors, training_state
from raypatch.training.checkpoints.resume import resume
from raypatch.training.evaluate import score_logits
from raypatch.training.loop import Interrupted, Trial, TrialError, draw_order
from raypatch.training.optim import make_optimizer
from raypatch.trial_fields.length import Length, training_length

logger = logging.getLogger(__name__)


class Pretrain:
    """All weights train by an objective without labels.

    The labels of train and val are read for a curve alone, the score of nearest neighbours, which chooses nothing:
    the last weights are kept.
    """

    name = "pretrain"
    trains_backbone = True
    weight_copies = 4

    def check(self, config: TrialConfig, info: DatasetInfo) -> None:
        find_objective(config.objective).check(config, info)

    def prepare(self, prepared: PreparedModel) -> None:
        prepared.model.requires_grad_(True)

    def set_training_mode(self, prepared: PreparedModel) -> None:
        prepared.model.train()

    def fit(self, trial: Trial) -> Progress:
        config, paths = trial.config, trial.paths
        length = training_length(config, len(trial.train))
        # Before the learner takes the head off the model, whose size the estimate is of.
        micro_batch = fit_memory(trial.prepared, config, trial.options.micro_batch)
        learner = find_objective(config.objective).make_learner(trial.prepared, config, trial.info)
        module = cast(nn.Module, learner)
        optimizer = make_optimizer(learner.student, config)
        progress = resume(paths, module, optimizer, length, keeps_best=False)
        step = PretrainingStep(learner, optimizer, trial.prepared, config, micro_batch=micro_batch)
        logger.info(
            "%s without labels on %s, from epoch %d", paths.folder.name, trial.prepared.device, progress.epoch + 1
        )
        while progress.epoch < length.epochs:
            row = _train_to_evaluation(trial, learner, step, length, progress)
            progress = Progress(row.epoch)
            # Before the checkpoint, which must never be ahead of the rows: resume drops later ones.
            append_epoch(paths.epochs, row)
            save_tensors(paths.checkpoint, training_state(module, optimizer), progress)
            trial.on_epoch(row)
        save_tensors(paths.best_weights, learner.kept().state_dict(), progress)
        return progress


def _train_to_evaluation(
    trial: Trial, learner: Learner, step: PretrainingStep, length: Length, progress: Progress
) -> EpochRow:
    """Train from where the progress stands to the next evaluation, and say what has come of it.

    Raises Interrupted when asked to stop, TrialError when training diverged.
    """
    started = time.perf_counter()
    until = length.next_evaluation(progress.epoch)
    loss_sum, images = 0.0, 0
    for epoch in range(progress.epoch, until):
        epoch_loss, seen = _take_steps(trial, learner, step, length, epoch)
        loss_sum += epoch_loss
        images += seen
    train_seconds = time.perf_counter() - started
    loss = loss_sum / images
    if not math.isfinite(loss):
        raise TrialError(f"pretraining diverged in epoch {until}: its loss is {loss}; lower lr={trial.config.lr}")
    scores = _neighbour_scores(trial, learner)
    watched = learner.watched()
    alarm = learner.alarm(watched)
    if alarm is not None:
        logger.warning("epoch %d: %s", until, alarm)
    last = length.steps_at(until) - 1
    return EpochRow(
        epoch=until,
        train_loss=loss,
        val=scores,
        lr=learning_rate(trial.config, Moment(last, until - 1, length)),
        seconds=time.perf_counter() - started,
        images_per_second=images / train_seconds,
        peak_memory_bytes=peak_memory(trial.prepared.device),
        step=last + 1,
        alarm=alarm,
        watched=watched,
    )


def _take_steps(trial: Trial, learner: Learner, step: PretrainingStep, length: Length, epoch: int) -> tuple[float, int]:
    """Take the steps of one epoch, counted from 0; return the sum of the images' losses, and how many these were."""
    config, train = trial.config, trial.train
    order = draw_order(trial, epoch)
    drawn = learner.draw(len(train), generator(config.seed, epoch, "views"))
    first, last = length.steps_at(epoch), length.steps_at(epoch + 1)
    loss_sum, seen = torch.zeros((), device=trial.prepared.device), 0
    with _seeded_blocks(trial, epoch):
        for number in range(first, last):
            if trial.should_stop():
                raise Interrupted
            start = (number - first) * config.batch_size
            rows = order[start : start + config.batch_size]
            images, _ = train.take(rows)
            # Drawn for places in the epoch, not for images: as the order is random, that is the same.
            places = slice(start, start + len(rows))
            loss = step(images, [view.take(places) for view in drawn], Moment(number, epoch, length))
            loss_sum += loss * len(rows)
            seen += len(rows)
    return loss_sum.item(), seen


@contextlib.contextmanager
def _seeded_blocks(trial: Trial, epoch: int) -> Iterator[None]:
    """Let what the network itself draws, which blocks it leaves out, follow from the seed and the epoch."""
    device = trial.prepared.device
    cards = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.manual_seed(generator(trial.config.seed, epoch, "drop path").initial_seed())
        yield


def _neighbour_scores(trial: Trial, learner: Learner) -> dict[str, float]:
    """Scores of nearest neighbours on val: a curve to look at."""
    outputs = trial.task.outputs(trial.info.classes)
    logits = neighbour_logits(learner.features, trial.prepared, trial.train, trial.val, trial.config, outputs=outputs)
    return dict(score_logits(logits, trial.val.labels, trial.task, final=False))
