"""One trial from its config to its result on disk: prepare, fit by its method, finish."""

import math
import statistics
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.balance import count_classes, count_patients
from raypatch.data.catalog import Split
from raypatch.data.resident import ResidentSplit, load_resident
from raypatch.data.source import describe, load_ids, load_patients
from raypatch.machine.runtime import peak_memory, provenance, reset_peak_memory
from raypatch.methods import find_method
from raypatch.models.prepared import prepare_model
from raypatch.results import (
    DatasetFacts,
    EpochRow,
    Predictions,
    Scores,
    TrialPaths,
    TrialResult,
    read_epochs,
    write_json,
    write_predictions,
)
from raypatch.tasks import find_task
from raypatch.training.checkpoint import Progress
from raypatch.training.evaluate import score_logits
from raypatch.training.loop import Trial


def train_trial(
    config: TrialConfig,
    paths: TrialPaths,
    options: RunOptions,
    *,
    on_epoch: Callable[[EpochRow], object] = bool,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Run one trial, from its checkpoint if there is one, and write everything of its folder.

    on_epoch: called with each epoch's row once its checkpoint is on disk. should_stop: asked before
    every step. The caller holds the folder's lock. Raises Interrupted when asked to stop,
    TrialError when training diverged, ValueError for wrong input.
    """
    method = find_method(config.method)
    trial = prepare_trial(config, paths, options, on_epoch, should_stop)
    method.prepare(trial.prepared)
    progress = method.fit(trial)
    return finish_trial(trial, progress)


def prepare_trial(
    config: TrialConfig,
    paths: TrialPaths,
    options: RunOptions,
    on_epoch: Callable[[EpochRow], object] = bool,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trial:
    """Build a trial's model and load the images that it may see while it trains.

    Raises ValueError for wrong input.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    info = describe(config.source, data_dir=options.data_dir, files=options.files)
    prepared = prepare_model(config, info, options)
    # Before the images are loaded, which lie on the device and count as the trial's own.
    reset_peak_memory(prepared.device)
    return Trial(
        config=config,
        options=options,
        paths=paths,
        info=info,
        task=find_task(config.task or info.task),
        prepared=prepared,
        train=load_resident(config, "train", info, options, prepared.device),
        val=load_resident(config, "val", info, options, prepared.device),
        on_epoch=on_epoch,
        should_stop=should_stop,
    )


def _names(
    trial: Trial, name: Split, split: ResidentSplit, load: Callable[..., NDArray[np.str_] | None]
) -> NDArray[np.str_] | None:
    """What the images are called, or their patients, as `load` says; None where the data does not say."""
    config, options = trial.config, trial.options
    names = load(config.source, name, fold=config.fold, data_dir=options.data_dir, files=options.files)
    return None if names is None else names[split.index.numpy()]


def finish_trial(trial: Trial, progress: Progress) -> TrialResult:
    """Predict val and, for the only time, test with the fitted model; write result.json last."""
    prepared = trial.prepared
    # Loaded here and no earlier, so that nothing that trains or selects can see it.
    test = load_resident(trial.config, "test", trial.info, trial.options, prepared.device)
    scores: dict[Split, Scores] = {}
    predictions: dict[Split, Predictions] = {}
    splits: dict[Split, ResidentSplit] = {"val": trial.val, "test": test}
    for name, split in splits.items():
        logits = prepared.logits(split.images)
        scores[name] = score_logits(logits, split.labels, trial.task, final=True)
        predictions[name] = Predictions(
            index=split.index.numpy(),
            label=split.labels.cpu().numpy(),
            probability=trial.task.probabilities(logits).cpu().numpy(),
            group=_names(trial, name, split, load_patients),
            id=_names(trial, name, split, load_ids),
        )
    write_predictions(trial.paths.predictions, predictions)
    rows = read_epochs(trial.paths.epochs)
    # The median: the first epoch warms up, and a resumed trial has several first epochs.
    speeds = [row.images_per_second for row in rows]
    result = TrialResult(
        trial_id=trial.config.trial_id(),
        status="ok",
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        val=dict(scores["val"]),
        test=dict(scores["test"]),
        dataset=dataset_facts(trial, test),
        model=prepared.facts,
        train_seconds=sum(row.seconds for row in rows),
        images_per_second=statistics.median(speeds) if speeds else math.nan,
        peak_memory_bytes=peak_memory(prepared.device),
        precision=prepared.precision,
        device=str(prepared.device),
        provenance=provenance(),
    )
    # The result says that all is done: a kill before it is written leaves a trial to be resumed.
    write_json(trial.paths.result, result)
    trial.paths.checkpoint.unlink(missing_ok=True)
    return result


def dataset_facts(trial: Trial, test: ResidentSplit) -> DatasetFacts:
    """What the analysis needs of a trial's dataset."""
    info = trial.info
    balance: list[tuple[int, ...]] = []
    patients: list[int | None] = []
    splits: dict[Split, ResidentSplit] = {"train": trial.train, "val": trial.val, "test": test}
    for name, split in splits.items():
        balance.append(count_classes(split.labels.cpu().numpy(), len(info.classes)))
        patients.append(count_patients(_names(trial, name, split, load_patients)))
    return DatasetFacts(
        task=trial.config.task or info.task,
        dimensions=3 if info.dimensions == 3 else 2,
        channels=3 if info.channels == 3 else 1,
        classes=info.classes,
        counts=(len(trial.train), len(trial.val), len(test)),
        balance=tuple(balance),
        patients=tuple(patients),
        rule=info.rule,
    )
