"""Training by gradient, epoch by epoch: resumed where it was left, to the bit on a CPU."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.augment import draw_parameters
from raypatch.data.batches.resident import ResidentSplit
from raypatch.data.catalog import DatasetInfo, Split
from raypatch.machine.runtime import generator, peak_memory, seed_dropout
from raypatch.models.attention import choose_attention
from raypatch.models.memory import fit_memory
from raypatch.models.prepared import PreparedModel
from raypatch.results import EpochRow, TrialPaths, append_epoch
from raypatch.tasks import Task
from raypatch.training.checkpoints.checkpoint import Progress, load_tensors
from raypatch.training.checkpoints.resume import resume
from raypatch.training.checkpoints.writer import CheckpointWriter
from raypatch.training.evaluate import evaluate
from raypatch.training.loss import balanced_order, make_loss
from raypatch.training.optim import learning_rates, make_optimizer, set_learning_rates
from raypatch.training.progress import advance, is_over
from raypatch.training.steps.compiled import is_compiled
from raypatch.training.steps.step import TrainingStep
from raypatch.trial_fields.length import Length, training_length

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
    epoch's row once that is on disk, and while no checkpoint is being written. should_stop: asked before every step.
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

    set_training_mode: called before steps are taken. Raises Interrupted when asked to stop,
    TrialError when training diverged.
    """
    config, paths, prepared = trial.config, trial.paths, trial.prepared
    model = prepared.model
    length = training_length(config, len(trial.train))
    optimizer = make_optimizer(model, config, prepared.head)
    progress = resume(paths, model, optimizer, length)
    if progress.epoch == 0:
        choose_attention(prepared, config.batch_size)
    step = make_step(trial, optimizer, length)
    logger.info(
        "%s on %s in %s, from epoch %d",
        paths.folder.name,
        prepared.device,
        prepared.precision,
        progress.epoch + 1,
    )
    with CheckpointWriter(paths) as writer:
        while not is_over(progress, config, length):
            # Every time, because predicting the validation images switches it off.
            set_training_mode()
            taken = take_epochs(trial, step, length, progress)
            progress = end_epochs(trial, length, progress, taken, writer)
            writer.keep(model, optimizer, progress, is_over=is_over(progress, config, length))
    load_best(trial)
    return progress


def end_epochs(trial: Trial, length: Length, progress: Progress, taken: "Taken", writer: CheckpointWriter) -> Progress:
    """Evaluate what was trained, write its row and tell of it. Raises TrialError where it diverged.

    writer: of the trial; it has yet to keep the state.
    """
    config, paths, prepared = trial.config, trial.paths, trial.prepared
    started = time.perf_counter()
    seen = evaluate(prepared, trial.val, trial.task, final=False)
    if not (math.isfinite(taken.loss) and seen.is_finite):
        raise TrialError(f"training diverged in epoch {taken.epoch}: its loss is {taken.loss}; lower lr={config.lr}")
    row = EpochRow(
        epoch=taken.epoch,
        train_loss=taken.loss,
        val=dict(seen.scores),
        lr=taken.lr,
        seconds=taken.seconds + time.perf_counter() - started,
        images_per_second=taken.images / taken.seconds,
        peak_memory_bytes=peak_memory(prepared.device),
        step=length.steps_at(taken.epoch),
        alarm=seen.alarm,
    )
    progress = advance(progress, row, config)
    # Before the checkpoint, which must never be ahead of the rows: resume drops later ones.
    append_epoch(paths.epochs, row)
    # Who is told of an epoch may give the trial up and clear its folder.
    writer.wait()
    trial.on_epoch(row)
    return progress


def load_best(trial: Trial) -> None:
    """Leave the model with its best weights."""
    best = load_tensors(trial.paths.best_weights)
    assert best is not None, "written or checked by this process"
    trial.prepared.model.load_state_dict(best[0])


def make_step(trial: Trial, optimizer: torch.optim.Optimizer, length: Length) -> TrainingStep:
    """The step of a trial, with its loss, in as many passes as its memory asks for."""
    config, prepared = trial.config, trial.prepared
    options = trial.options
    micro_batch = fit_memory(prepared, config, options.micro_batch, share=options.card_share)
    # Class weights go by the images that are trained on.
    labels = trial.train.labels.to(prepared.device)
    loss = make_loss(config, trial.task, labels)
    compiled = is_compiled(config, options, prepared.device, prepared.precision, length.steps)
    return TrainingStep(prepared, optimizer, loss, config, micro_batch=micro_batch, compiled=compiled)


@dataclass(frozen=True)
class Taken:
    """What was trained up to an evaluation.

    epoch: the last one. loss: the mean over the images, as often as they were seen. lr: of the last step.
    seconds: that it took.
    """

    epoch: int
    loss: float
    images: int
    lr: float
    seconds: float


def take_epochs(trial: Trial, step: TrainingStep, length: Length, progress: Progress) -> Taken:
    """Train from where the progress stands to the next evaluation.

    Raises Interrupted when asked to stop.
    """
    started = time.perf_counter()
    until = length.next_evaluation(progress.epoch)
    loss_sum, images = 0.0, 0
    for epoch in range(progress.epoch, until):
        epoch_loss, seen = take_steps(trial, step, length, epoch, progress.reductions)
        loss_sum += epoch_loss
        images += seen
    lr = last_rate(trial, step.optimizer, length, until, progress.reductions)
    return Taken(until, loss_sum / images, images, lr, time.perf_counter() - started)


def last_rate(trial: Trial, optimizer: torch.optim.Optimizer, length: Length, epochs: int, reductions: int) -> float:
    """The learning rate of the last step of so many epochs: of the first group, the encoder's where that trains."""
    rates = learning_rates(trial.config, length, length.steps_at(epochs) - 1, reductions)
    return rates[optimizer.param_groups[0]["part"]]


def take_steps(trial: Trial, step: TrainingStep, length: Length, epoch: int, reductions: int) -> tuple[float, int]:
    """Take the steps of one epoch, counted from 0; return the sum of the images' losses, and how many these were.

    reductions: how often a plateau has lowered the learning rate. Raises Interrupted when asked to stop.
    """
    train, config = trial.train, trial.config
    seed_dropout(config.seed, epoch, trial.prepared.device)
    order = draw_order(trial, epoch)
    augmentation = draw_augmentation(trial, epoch)
    first, last = length.steps_at(epoch), length.steps_at(epoch + 1)
    images_seen = 0
    rates_before = None
    # Summed on the device: reading a loss at every step would make the CPU wait for it.
    loss_sum = torch.zeros((), device=trial.prepared.device)
    for number in range(first, last):
        if trial.should_stop():
            raise Interrupted
        rates = learning_rates(config, length, number, reductions)
        if rates != rates_before:
            set_learning_rates(step.optimizer, rates)
            rates_before = rates
        start = (number - first) * config.batch_size
        rows = order[start : start + config.batch_size]
        images, labels = train.take(rows)
        parameters = None if augmentation is None else augmentation[start : start + config.batch_size]
        loss_sum += step(images, labels, parameters) * len(rows)
        images_seen += len(rows)
    return loss_sum.item(), images_seen


def draw_order(trial: Trial, epoch: int) -> torch.Tensor:
    """Draw the order of an epoch's images, (N,) places, where the images lie."""
    train = trial.train
    random = generator(trial.config.seed, epoch, "order")
    if trial.config.sampling == "balanced":
        order = balanced_order(train.labels.cpu(), random)
    else:
        order = torch.randperm(len(train), generator=random)
    return order.to(train.images.device)


def draw_augmentation(trial: Trial, epoch: int) -> torch.Tensor | None:
    """Draw the augmentation of each image of an epoch, on the device;
    None where the trial has none.
    """
    if trial.config.augmentation == "none":
        return None
    # For the whole epoch at once, so that no draw hangs on how batches are divided.
    random = generator(trial.config.seed, epoch, "augmentation")
    shape = trial.prepared.augmented_shape(trial.train.images)
    elastic = trial.config.augmentation == "elastic"
    drawn = draw_parameters(len(trial.train), shape, random, mirror_safe=trial.info.mirror_safe, elastic=elastic)
    return drawn.to(trial.prepared.device)
