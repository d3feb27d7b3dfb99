"""Training by gradient, epoch by epoch: resumed where it was left, to the bit on a CPU."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.augment import draw_parameters
from raypatch.data.catalog import DatasetInfo, Split
from raypatch.data.resident import ResidentSplit
from raypatch.machine.runtime import generator, peak_memory
from raypatch.models.memory import fit_memory
from raypatch.models.prepared import PreparedModel
from raypatch.results import EpochRow, TrialPaths, append_epoch
from raypatch.selection import goodness
from raypatch.tasks import Task
from raypatch.training.checkpoint import Progress, load_tensors, save_tensors, training_state
from raypatch.training.evaluate import score_logits
from raypatch.training.optim import learning_rate, make_optimizer, set_learning_rate
from raypatch.training.resume import resume
from raypatch.training.step import TrainingStep

logger = logging.getLogger(__name__)


class Interrupted(Exception):  # noqa: N818 - no error: the trial was asked to stop and can go on
    """The trial stopped between two steps because it was asked to; its last checkpoint stands."""


class TrialError(RuntimeError):
    """The trial cannot succeed however often it is tried; the message says why and what to change."""


@dataclass(frozen=True)
class Trial:
    """All that a method needs to fit a model.

    prepared: the model; of a trial on stored features the head alone, and features stand in for
    images in all splits. load: a split that is not needed before the end. on_epoch: called with each
    epoch's row once its checkpoint is on disk. should_stop: asked before every step.
    """

    config: TrialConfig
    options: RunOptions
    paths: TrialPaths
    info: DatasetInfo
    task: Task
    prepared: PreparedModel
    train: ResidentSplit
    val: ResidentSplit
    load: Callable[[Split], ResidentSplit]
    on_epoch: Callable[[EpochRow], object]
    should_stop: Callable[[], bool]


def train_epochs(trial: Trial, set_training_mode: Callable[[], None]) -> Progress:
    """Train what has a gradient, from the trial's checkpoint on,
    and leave the model with its best weights.

    set_training_mode: called before each epoch's steps. Raises Interrupted when asked to stop,
    TrialError when training diverged.
    """
    config, paths, prepared = trial.config, trial.paths, trial.prepared
    model = prepared.model
    optimizer = make_optimizer(model, config)
    progress = resume(paths, model, optimizer)
    micro_batch = fit_memory(prepared, config, trial.options.micro_batch)
    step = TrainingStep(prepared, optimizer, trial.task, batch_size=config.batch_size, micro_batch=micro_batch)
    logger.info(
        "%s on %s in %s, from epoch %d",
        paths.folder.name,
        prepared.device,
        prepared.precision,
        progress.epoch + 1,
    )
    for epoch in range(progress.epoch, config.epochs):
        started = time.perf_counter()
        lr = learning_rate(config, epoch)
        set_learning_rate(optimizer, lr)
        # Every epoch, because predicting the validation images switches it off.
        set_training_mode()
        train_loss = take_steps(trial, step, epoch)
        train_seconds = time.perf_counter() - started
        logits = prepared.logits(trial.val.images)
        if not (math.isfinite(train_loss) and logits.isfinite().all()):
            raise TrialError(f"training diverged in epoch {epoch + 1}: its loss is {train_loss}; lower lr={config.lr}")
        row = EpochRow(
            epoch=epoch + 1,
            train_loss=train_loss,
            val=dict(score_logits(logits, trial.val.labels, trial.task, final=False)),
            lr=lr,
            seconds=time.perf_counter() - started,
            images_per_second=len(trial.train) / train_seconds,
            peak_memory_bytes=peak_memory(prepared.device),
        )
        progress = advance(progress, row, config)
        # Before the checkpoint, which must never be ahead of the rows: resume drops later ones.
        append_epoch(paths.epochs, row)
        save_tensors(paths.checkpoint, training_state(model, optimizer), progress)
        # After the checkpoint, which can restore the best weights: see resume.
        if progress.best_epoch == row.epoch:
            save_tensors(paths.best_weights, model.state_dict(), progress)
        trial.on_epoch(row)
    best = load_tensors(paths.best_weights)
    assert best is not None, "written or checked by this process"
    model.load_state_dict(best[0])
    return progress


def take_steps(trial: Trial, step: TrainingStep, epoch: int) -> float:
    """Take the steps of one epoch, counted from 0, and return the mean loss.

    Raises Interrupted when asked to stop.
    """
    train, batch_size = trial.train, trial.config.batch_size
    order = torch.randperm(len(train), generator=generator(trial.config.seed, epoch, "order"))
    order = order.to(train.images.device)
    augmentation = draw_augmentation(trial, epoch)
    # Summed on the device: reading a loss at every step would make the CPU wait for it.
    loss_sum = torch.zeros((), device=trial.prepared.device)
    for start in range(0, len(train), batch_size):
        if trial.should_stop():
            raise Interrupted
        rows = order[start : start + batch_size]
        images, labels = train.take(rows)
        parameters = None if augmentation is None else augmentation[start : start + batch_size]
        loss_sum += step(images, labels, parameters) * len(rows)
    return loss_sum.item() / len(train)


def draw_augmentation(trial: Trial, epoch: int) -> torch.Tensor | None:
    """Draw the augmentation of each image of an epoch, on the device;
    None where the trial has none.
    """
    if trial.config.augmentation != "paper":
        return None
    # For the whole epoch at once, so that no draw hangs on how batches are divided.
    random = generator(trial.config.seed, epoch, "augmentation")
    shape = trial.train.images.shape[2:]
    drawn = draw_parameters(len(trial.train), shape, random, mirror_safe=trial.info.mirror_safe)
    return drawn.to(trial.prepared.device)


def advance(progress: Progress, row: EpochRow, config: TrialConfig) -> Progress:
    """The progress after `row`: the best epoch is the first with the
    best selection score; NaN never wins.
    """
    score = row.val[config.selection_metric]
    best = progress.best_figure
    if best is None or _goodness(config, score) > _goodness(config, best):
        return Progress(row.epoch, row.epoch, score)
    return Progress(row.epoch, progress.best_epoch, best)


def _goodness(config: TrialConfig, score: float) -> float:
    return goodness(config.selection, score, config.task)
