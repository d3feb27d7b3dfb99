"""One trial from its config to its result on disk: prepare, fit by its method, finish."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.balance import count_classes, count_patients
from raypatch.data.batches.resident import ResidentSplit, load_resident
from raypatch.data.catalog import Split
from raypatch.data.source import load_index, load_texts
from raypatch.features.head import FeatureSource, open_source
from raypatch.machine.runtime import peak_memory, provenance, reset_peak_memory, resolve_device
from raypatch.methods import GroupMethod, feature_method, find_method
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
from raypatch.tasks import MaskTask, find_task
from raypatch.tasks.seen import describe_seen
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.evaluate import evaluate
from raypatch.training.kept_masks import keep_examples, keep_pixels
from raypatch.training.loop import Trial, TrialError


def train_trial(
    config: TrialConfig,
    paths: TrialPaths,
    options: RunOptions,
    *,
    on_epoch: Callable[[EpochRow], object] = bool,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Run one trial, from its checkpoint if there is one, and write everything of its folder.

    on_epoch: as in `Trial`. should_stop: asked before
    every step. The caller holds the folder's lock. Raises Interrupted when asked to stop,
    TrialError when training diverged, ValueError for wrong input.
    """
    method = find_method(config.method)
    trial = prepare_trial(config, paths, options, on_epoch, should_stop)
    method.prepare(trial.prepared)
    progress = method.fit(trial)
    return finish_weights(trial, progress) if config.makes_weights else finish_trial(trial, progress)


def train_group(
    configs: Sequence[TrialConfig],
    paths: Mapping[str, TrialPaths],
    options: RunOptions,
    *,
    on_epoch: Callable[[str, EpochRow], object],
    should_stop: Callable[[], bool],
) -> Iterator[tuple[TrialConfig, TrialResult | TrialError]]:
    """Run trials of equal `methods.group_key` together, as `train_trial` runs one.

    Gives each as soon as it is over, or cannot succeed. paths: by trial id. on_epoch: with the
    trial's id. The caller holds the locks of all folders. Raises as train_trial, but for TrialError.
    """
    method = find_method(configs[0].method)
    assert isinstance(method, GroupMethod), "it gave the group its key"
    source: FeatureSource | None = None
    trials: list[Trial] = []
    for config in configs:
        trial_id = config.trial_id()
        tell = functools.partial(on_epoch, trial_id)
        trial, source = _prepare(config, paths[trial_id], options, tell, should_stop, source)
        method.prepare(trial.prepared)
        trials.append(_with_images_of(trials[0], trial) if trials and source is None else trial)
    for trial, outcome in method.fit_group(trials):
        over = outcome if isinstance(outcome, TrialError) else finish_trial(trial, outcome)
        yield trial.config, over


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
    return _prepare(config, paths, options, on_epoch, should_stop)[0]


def _prepare(
    config: TrialConfig,
    paths: TrialPaths,
    options: RunOptions,
    on_epoch: Callable[[EpochRow], object],
    should_stop: Callable[[], bool],
    source: FeatureSource | None = None,
) -> tuple[Trial, FeatureSource | None]:
    """A trial, and where its features come from if it is one on features.

    source: of a trial that shares its features, which need not be loaded again.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    if config.parent is not None:
        # Beside this trial, wherever the run folder lies now.
        made = paths.sibling(config.parent).best_weights
        options = options.model_copy(update={"files": {**options.files, config.weights: made}})
    info = describe_seen(config, options)
    method = feature_method(config)
    if method is None:
        prepared = prepare_model(config, info, options)
        # Before the images are loaded, which lie on the device and count as the trial's own.
        reset_peak_memory(prepared.device)

        def load(split: Split) -> ResidentSplit:
            return load_resident(config, split, info, options, prepared.device)

    else:
        # A pass over the images may be needed, which counts as this trial's.
        reset_peak_memory(resolve_device(options.device))
        source = source or open_source(config, paths, options, info, should_stop)
        prepared = source.prepare_head(method, config)
        load = functools.partial(source.load, config)
        # Its passes take no memory to speak of.
        options = options.model_copy(update={"micro_batch": config.batch_size})
    trial = Trial(
        config=config,
        options=options,
        paths=paths,
        info=info,
        task=find_task(config.task or info.task),
        prepared=prepared,
        train=load("train"),
        val=load("val"),
        load=load,
        on_epoch=on_epoch,
        should_stop=should_stop,
    )
    if source is not None:
        source.forget_backbone()
    return trial, source


def _with_images_of(other: Trial, trial: Trial) -> Trial:
    """The trial with the images of another of its group, which lie in memory once; not with a share drawn by seed."""
    train = other.train if trial.config.train_fraction == 1 else trial.train
    return dataclasses.replace(trial, train=train, val=other.val)


def _known_images(trial: Trial, name: Split, split: ResidentSplit) -> NDArray[np.int64]:
    """By which number each image of a split is known."""
    config, options = trial.config, trial.options
    rows = split.index.numpy()
    # Of train perhaps a share only: the rows reach further than their number.
    count = int(rows.max()) + 1
    index = load_index(config.source, name, count, fold=config.fold, data_dir=options.data_dir, files=options.files)
    known: NDArray[np.int64] = index[rows]
    return known


def _names(
    trial: Trial, what: Literal["ids", "patients"], name: Split, index: NDArray[np.int64]
) -> NDArray[np.str_] | None:
    """What images are called, or their patients; None where the data does not say."""
    config, options = trial.config, trial.options
    names = load_texts(config.source, what, name, fold=config.fold, data_dir=options.data_dir, files=options.files)
    return None if names is None else names[index]


def finish_trial(trial: Trial, progress: Progress) -> TrialResult:
    """Predict val and, for the only time, test with the fitted model; write result.json last."""
    prepared = trial.prepared
    # Loaded here and no earlier, so that nothing that trains or selects can see it.
    test = trial.load("test")
    scores: dict[Split, Scores] = {}
    predictions: dict[Split, Predictions] = {}
    splits: dict[Split, ResidentSplit] = {"val": trial.val, "test": test}
    for name, split in splits.items():
        seen = evaluate(prepared, split, trial.task, final=True)
        index = _known_images(trial, name, split)
        scores[name] = seen.scores
        predictions[name] = Predictions(
            index=index,
            label=seen.label,
            probability=seen.probability,
            group=_names(trial, "patients", name, index),
            id=_names(trial, "ids", name, index),
        )
    write_predictions(trial.paths.predictions, predictions)
    if isinstance(trial.task, MaskTask):
        keep_examples(trial.paths, prepared, test, trial.task, predictions["test"].index)
        if trial.options.keep_masks:
            indices = {name: found.index for name, found in predictions.items()}
            keep_pixels(trial.paths, prepared, splits, trial.task, indices)
    return _write_result(
        trial,
        progress,
        # A method without epochs has no best one.
        best_epoch=progress.best_epoch or None,
        val=dict(scores["val"]),
        test=dict(scores["test"]),
        dataset=dataset_facts(trial, test),
    )


def finish_weights(trial: Trial, progress: Progress) -> TrialResult:
    """Write the result of a trial that makes weights: it predicts nothing, so that test is never read."""
    last = read_epochs(trial.paths.epochs)[-1]
    info = trial.info
    facts = DatasetFacts(
        task=trial.task.name,
        dimensions=3 if info.dimensions == 3 else 2,
        channels=3 if info.channels == 3 else 1,
        classes=info.classes,
        counts=(len(trial.train), len(trial.val), info.counts[2]),
        rule=info.rule,
    )
    return _write_result(trial, progress, val=last.val, dataset=facts, alarm=last.alarm)


def _write_result(trial: Trial, progress: Progress, **found: Any) -> TrialResult:
    """Write result.json, with what every trial says of its training. found: further fields of it."""
    rows = read_epochs(trial.paths.epochs)
    # The median: the first epoch warms up, and a resumed trial has several first epochs.
    speeds = [row.images_per_second for row in rows]
    prepared = trial.prepared
    result = TrialResult(
        trial_id=trial.config.trial_id(),
        status="ok",
        epochs=progress.epoch,
        model=prepared.facts,
        train_seconds=sum(row.seconds for row in rows),
        images_per_second=statistics.median(speeds) if speeds else math.nan,
        peak_memory_bytes=peak_memory(prepared.device),
        precision=prepared.stated_precision,
        device=str(prepared.device),
        provenance=provenance(),
        **found,
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
        index = _known_images(trial, name, split)
        patients.append(count_patients(_names(trial, "patients", name, index)))
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
