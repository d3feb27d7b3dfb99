"""The only training loop: one trial from its config to its result on disk, resumed where it was left."""

import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.models import VisionTransformer
from torch import nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.augment import draw_parameters
from raypatch.data.catalog import DatasetInfo, Split
from raypatch.data.resident import ResidentSplit, load_resident
from raypatch.models.build import build_model, set_training_mode
from raypatch.models.flops import trial_facts
from raypatch.models.memory import fit_memory
from raypatch.results import (
    DamagedFileError,
    DatasetFacts,
    EpochRow,
    ModelFacts,
    Predictions,
    Scores,
    TrialPaths,
    TrialResult,
    append_epoch,
    read_epochs,
    write_epochs,
    write_json,
    write_predictions,
)
from raypatch.runtime import (
    Precision,
    generator,
    peak_memory,
    provenance,
    reset_peak_memory,
    resolve_device,
    resolve_precision,
)
from raypatch.selection import goodness
from raypatch.tasks import Task, find_task
from raypatch.training.checkpoint import (
    Progress,
    load_tensors,
    model_weights,
    restore_training_state,
    save_tensors,
    training_state,
)
from raypatch.training.evaluate import predict_logits, score_logits
from raypatch.training.optim import learning_rate, make_optimizer, set_learning_rate
from raypatch.training.step import TrainingStep

logger = logging.getLogger(__name__)


class Interrupted(Exception):  # noqa: N818 - no error: the trial was asked to stop and can go on
    """The trial stopped between two steps because it was asked to; its last checkpoint stands."""


class TrialError(RuntimeError):
    """The trial cannot succeed however often it is tried; the message says why and what to change."""


@dataclass(frozen=True)
class Trained:
    """What evaluation needs of a trial at run time."""

    config: TrialConfig
    info: DatasetInfo
    task: Task
    facts: ModelFacts
    model: VisionTransformer
    mean: torch.Tensor
    std: torch.Tensor
    device: torch.device
    precision: Precision

    def logits(self, split: ResidentSplit) -> torch.Tensor:
        """Logits (N, C) of a split."""
        return predict_logits(
            self.model,
            split.images,
            device=self.device,
            tokens=self.facts.tokens,
            mean=self.mean,
            std=self.std,
            precision=self.precision,
        )


def prepare(config: TrialConfig, options: RunOptions) -> Trained:
    """Build a trial's model on its device, with the initial weights. Raises ValueError for wrong input."""
    device = resolve_device(options.device)
    info, facts = trial_facts(config, options)
    built = build_model(config, dimensions=info.dimensions, outputs=len(info.classes), files=options.files)
    return Trained(
        config,
        info,
        find_task(config.task or info.task),
        facts,
        model=built.model.to(device),
        mean=torch.tensor(built.mean, device=device),
        std=torch.tensor(built.std, device=device),
        device=device,
        precision=resolve_precision(config.precision, device),
    )


def train_trial(
    config: TrialConfig,
    paths: TrialPaths,
    options: RunOptions,
    *,
    on_epoch: Callable[[EpochRow], object] = bool,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Train one trial, from its checkpoint if there is one, and write everything of its folder.

    on_epoch: called with each epoch's row once its checkpoint is on disk. should_stop: asked before every step.
    The caller holds the folder's lock. Raises Interrupted when asked to stop, TrialError when training diverged,
    ValueError for wrong input.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    trained = prepare(config, options)
    model, device = trained.model, trained.device
    reset_peak_memory(device)
    train = load_resident(config, "train", trained.info, options, device)
    val = load_resident(config, "val", trained.info, options, device)
    optimizer = make_optimizer(model, config)
    progress = _resume(paths, model, optimizer)
    step = TrainingStep(
        model,
        optimizer,
        task=trained.task,
        mean=trained.mean,
        std=trained.std,
        precision=trained.precision,
        tokens=trained.facts.tokens,
        batch_size=config.batch_size,
        micro_batch=fit_memory(model, config, trained.facts, trained.precision, device, options.micro_batch),
        fixed_buffers=device.type == "cuda",
    )
    logger.info("%s on %s in %s, from epoch %d", paths.folder.name, device, trained.precision, progress.epoch + 1)

    for epoch in range(progress.epoch, config.epochs):
        started = time.perf_counter()
        lr = learning_rate(config, epoch)
        set_learning_rate(optimizer, lr)
        order = torch.randperm(len(train), generator=generator(config.seed, epoch, "order"))
        order = order.to(train.images.device)
        augmentation = None
        if config.augmentation == "paper":
            random = generator(config.seed, epoch, "augmentation")
            augmentation = draw_parameters(
                len(train), train.images.shape[2:], random, mirror_safe=trained.info.mirror_safe
            ).to(device)
        set_training_mode(model, config)
        loss_sum = torch.zeros((), device=device)
        for start in range(0, len(train), config.batch_size):
            if should_stop():
                raise Interrupted
            rows = order[start : start + config.batch_size]
            images, labels = train.take(rows)
            parameters = augmentation[start : start + config.batch_size] if augmentation is not None else None
            loss_sum += step(images, labels, parameters) * len(rows)
        train_loss = loss_sum.item() / len(train)
        train_seconds = time.perf_counter() - started
        logits = trained.logits(val)
        if not (math.isfinite(train_loss) and logits.isfinite().all()):
            raise TrialError(f"training diverged in epoch {epoch + 1}: its loss is {train_loss}; lower lr={config.lr}")

        scores = score_logits(logits, val.labels, trained.task, final=False)
        row = EpochRow(
            epoch=epoch + 1,
            train_loss=train_loss,
            val=dict(scores),
            lr=lr,
            seconds=time.perf_counter() - started,
            images_per_second=len(train) / train_seconds,
            peak_memory_bytes=peak_memory(device),
        )
        progress = advance(progress, row, config)
        append_epoch(paths.epochs, row)
        save_tensors(paths.checkpoint, training_state(model, optimizer), progress)
        if progress.best_epoch == row.epoch:  # after the checkpoint, which can restore it: see _resume
            save_tensors(paths.best_weights, model.state_dict(), progress)
        on_epoch(row)

    return _finish(trained, paths, options, progress, val, len(train))


def advance(progress: Progress, row: EpochRow, config: TrialConfig) -> Progress:
    """The progress after `row`: the best epoch is the first with the best selection figure; NaN never wins."""
    figure = row.val[config.selection_metric]
    best = progress.best_figure
    if best is None or goodness(config.selection, figure) > goodness(config.selection, best):
        return Progress(row.epoch, row.epoch, figure)
    return Progress(row.epoch, progress.best_epoch, best)


def _resume(paths: TrialPaths, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Bring the trial to its last checkpoint, its files included; a missing or damaged one starts it again."""
    stored = load_tensors(paths.checkpoint)
    if stored is not None:
        tensors, progress = stored
        best = load_tensors(paths.best_weights)
        current = best is not None and best[1].epoch == progress.best_epoch
        if not current and progress.best_epoch == progress.epoch:
            save_tensors(paths.best_weights, model_weights(tensors), progress)
            current = True
        try:
            rows = [row for row in read_epochs(paths.epochs) if row.epoch <= progress.epoch]
        except DamagedFileError:
            rows = []
        if current and [row.epoch for row in rows] == list(range(1, progress.epoch + 1)):
            restore_training_state(tensors, model, optimizer)
            write_epochs(paths.epochs, rows)
            return progress
    if paths.checkpoint.exists():
        logger.warning("%s cannot be continued: its files are damaged; starting again", paths.folder.name)
    for leftover in (paths.checkpoint, paths.best_weights, paths.epochs, paths.predictions):
        leftover.unlink(missing_ok=True)
    return Progress()


def _finish(
    trained: Trained, paths: TrialPaths, options: RunOptions, progress: Progress, val: ResidentSplit, train_count: int
) -> TrialResult:
    """Predict val and, for the only time, test from the best weights; write result.json last."""
    best = load_tensors(paths.best_weights)
    assert best is not None, "written or checked by this process"
    trained.model.load_state_dict(best[0])
    test = load_resident(trained.config, "test", trained.info, options, trained.device)
    scores: dict[Split, Scores] = {}
    predictions: dict[Split, Predictions] = {}
    splits: dict[Split, ResidentSplit] = {"val": val, "test": test}
    for name, split in splits.items():
        logits = trained.logits(split)
        scores[name] = score_logits(logits, split.labels, trained.task, final=True)
        predictions[name] = Predictions(
            index=split.index.numpy(),
            label=split.labels.cpu().numpy(),
            probability=trained.task.probabilities(logits).cpu().numpy(),
        )
    write_predictions(paths.predictions, predictions)
    rows = read_epochs(paths.epochs)
    info = trained.info
    result = TrialResult(
        trial_id=trained.config.trial_id(),
        status="ok",
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        val=dict(scores["val"]),
        test=dict(scores["test"]),
        dataset=DatasetFacts(
            task=trained.config.task or info.task,
            dimensions=3 if info.dimensions == 3 else 2,
            channels=3 if info.channels == 3 else 1,
            classes=info.classes,
            counts=(train_count, len(val), len(test)),
        ),
        model=trained.facts,
        train_seconds=sum(row.seconds for row in rows),
        images_per_second=statistics.median(row.images_per_second for row in rows),
        peak_memory_bytes=peak_memory(trained.device),
        precision=trained.precision,
        device=str(trained.device),
        provenance=provenance(),
    )
    write_json(paths.result, result)
    paths.checkpoint.unlink(missing_ok=True)
    return result
