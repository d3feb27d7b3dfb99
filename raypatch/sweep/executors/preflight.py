"""Checks before anything starts: data, weights, models, device, folder.

A failure is a ValueError with the way out.
"""

import importlib.util
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.data.fetch import fetch, verify
from raypatch.data.source import data_folder, describe, load_labels, load_split
from raypatch.features.cost import shared_bytes
from raypatch.machine.runtime import resolve_device
from raypatch.methods import check_fields, feature_method, find_method
from raypatch.models.build import check_model, model_key
from raypatch.models.families.timm_names import choice_of_tag
from raypatch.models.flops import count_outputs, trial_facts
from raypatch.results import SweepPaths, read_sweep
from raypatch.storage.own_files import OWN_FILE
from raypatch.tasks import ClassTask, find_task
from raypatch.tasks.metrics import LOSS
from raypatch.tasks.protocols import UndefinedMetricWarning
from raypatch.tasks.seen import describe_seen
from raypatch.training.steps.compiled import compiler_name, find_compiler


def check_before_start(
    trials: Sequence[TrialConfig],
    options: RunOptions,
    *,
    executor: str,
    say: Callable[[str], object],
) -> None:
    """Check all that a sweep needs, fetching missing MedMNIST files.

    Raises ValueError; nothing has started then.
    """
    index = resolve_device(options.device).index
    if index and executor == "ray":
        raise ValueError(
            f"--device {options.device}: Ray gives each trial its card; set CUDA_VISIBLE_DEVICES={index} and leave"
            " --device out, or use --executor local"
        )
    if options.compile == "on" and any(find_method(config.method).trains_backbone for config in trials):
        check_compiler(resolve_device(options.device))
    models = one_per_model(trials)
    datasets = {config.source: None for config in models}
    for dataset in datasets:
        check_data(dataset, options, say=say)
    for config in trials:
        check_fields(config, describe_seen(config, options))
    selected = {(each.source, each.fold, each.task, each.selection): each for each in trials}
    for config in selected.values():
        check_selection(config, describe_seen(config, options), options)
    for config in models:
        info = describe_seen(config, options)
        outputs = count_outputs(config, info)
        check_model(config, dimensions=info.dimensions, outputs=outputs, files=options.files)
    for name in dict.fromkeys(config.model for config in models if config.weights != "random"):
        if choice := choice_of_tag(name):
            say(choice)


def check_compiler(device: torch.device) -> None:
    """See that torch can compile for this device. Raises ValueError."""
    if device.type == "cpu" and find_compiler() is None:
        raise ValueError(
            f"--compile on needs a C++ compiler, and there is no {compiler_name()} here: install one, such as the"
            " package g++, name it in $CXX, or leave --compile out"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError("--compile on needs triton on a GPU, which comes with torch for CUDA; or leave --compile out")


def check_selection(config: TrialConfig, info: DatasetInfo, options: RunOptions) -> None:
    """See that this validation split can tell which training is best. Raises ValueError.

    By images of one class alone the best is whatever always answers that class, by any score. And an
    AUC is undefined where a class has no image, whatever a model says: none would be best.
    """
    if info.made_up:
        return
    task = find_task(config.task or info.task)
    if not isinstance(task, ClassTask):
        _require_some_mask(config, options)
        return
    labels = load_labels(config.source, "val", fold=config.fold, data_dir=options.data_dir, files=options.files)
    found = _describe_labels(labels, config.fold)
    if len(np.unique(labels, axis=0)) == 1:
        raise ValueError(
            f"{config.dataset_label} cannot tell which training is best: {found}. By any score, {config.selection} too,"
            " that would be one which always answers so; move images of each class to val, as `raypatch data pack`"
            " does where it splits"
        )
    if config.selection_metric == LOSS.name:
        return
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(labels), task.outputs(info.classes), generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        scores = task.score(task.probabilities(logits).numpy(), labels, final=False)
    if math.isnan(scores.get(config.selection_metric, 0.0)):
        raise ValueError(
            f"{config.selection} is undefined on {config.dataset_label}: {found}. Choose by another score, such as"
            " selection=val_loss, or move images of each class to val"
        )


def _require_some_mask(config: TrialConfig, options: RunOptions) -> None:
    """Raise ValueError where no validation image shows a class: a model that finds nothing would be the best one."""
    loaded = load_split(
        config.source, "val", masks=True, fold=config.fold, data_dir=options.data_dir, files=options.files
    )
    if not loaded.labels.any():
        raise ValueError(
            f"the val masks of {config.dataset_label} are all empty, so that {config.selection} says nothing;"
            " move images that show a class to val"
        )


def _describe_labels(labels: NDArray[np.int64], fold: int | None) -> str:
    its_val = "its val" if fold is None else f"its val with fold={fold}"
    if labels.ndim == 1:
        present = np.unique(labels).tolist()
        return f"{its_val} has only class {', '.join(map(str, present))}"
    lacking = np.flatnonzero((labels.sum(axis=0) == 0) | labels.all(axis=0)).tolist()
    return f"in {its_val} each image has, or none has, label {', '.join(map(str, lacking))}"


def one_per_model(trials: Sequence[TrialConfig]) -> list[TrialConfig]:
    """Return the first trial of each model on each dataset: if these are fit, all are."""
    first: dict[tuple[Any, ...], TrialConfig] = {}
    for config in trials:
        first.setdefault((config.source, config.task, *model_key(config)), config)
    return list(first.values())


def check_monitoring(executor: str, *, dashboard: bool, track: str) -> None:
    """See that the dashboard and the tracker can watch the sweep where they are wanted.

    Raises ValueError.
    """
    if executor != "ray":
        way_out = f"goes with --executor ray, not {executor}; use that, or"
        if dashboard:
            raise ValueError(f"--dashboard {way_out} --no-dashboard")
        if track != "none":
            raise ValueError(f"--track {way_out} --track none")
    if track != "none" and importlib.util.find_spec(track) is None:
        install = f"pip install 'raypatch[{track}]'"
        raise ValueError(f"--track {track} needs the package {track}; install it: {install}")


def check_address(address: str, executor: str, *, dashboard: bool) -> None:
    """See that an --address goes with the other options. Raises ValueError."""
    if address == "local":
        return
    if executor != "ray":
        raise ValueError(f"--address {address} goes with --executor ray, not {executor}; use that, or --address local")
    if dashboard:
        raise ValueError(
            "--dashboard is for a Ray of its own; a cluster's is at port 8265 of its head. Leave --dashboard out, or"
            " resume with --no-dashboard"
        )


def check_data(dataset: str, options: RunOptions, *, say: Callable[[str], object]) -> None:
    """Have one dataset in place and intact. Raises ValueError.

    An official file is fetched if it is missing, and verified; an own one is inspected.
    """
    info = describe(dataset, data_dir=options.data_dir, files=options.files)
    if OWN_FILE.fullmatch(dataset) or info.made_up:
        return
    folder = data_folder(options.data_dir)
    if not (folder / f"{info.name}.npz").exists():
        say(f"fetching {info.name} into {folder}")
        fetch(info.name, data_dir=options.data_dir)
    verify(info.name, data_dir=options.data_dir)


def check_folder(folder: Path) -> SweepPaths:
    """Make the run folder and see that files can be written to it.

    Raises ValueError, also for a folder that a newer raypatch wrote.
    """
    paths = SweepPaths(folder)
    try:
        paths.trials.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell whether a network file system takes a file: it is tried.
        probe = folder / f".probe.{os.getpid()}.tmp"
        probe.write_bytes(b"raypatch")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write to the run folder {folder}: {error.strerror}; make it writable, or begin elsewhere with"
            " `raypatch run` and --runs-dir"
        ) from error
    if paths.record.exists():
        read_sweep(paths.record)
    return paths


def needed_bytes(todo: Sequence[TrialConfig], options: RunOptions, *, side_by_side: int) -> int:
    """Return the disk space that trials will take, in bytes.

    Each leaves its best weights and its predictions. Those that run at once have a checkpoint
    too: weights, the gradients' two moments and a copy while it is replaced are six times the
    weights. Of trials on stored features the head is small; features and backbones are shared.
    """
    when_finished, weights = 0, []
    shared: dict[str, int] = {}
    for config in todo:
        info, facts = trial_facts(config, options)
        weight_bytes = 4 * facts.parameters
        if feature_method(config) is not None:
            shared |= shared_bytes(config, info, facts, options)
            weight_bytes = 0
        # A prediction is a float32 per class, beside an index and a label of 8 bytes each; of masks three counts.
        predicted_images = info.counts[1] + info.counts[2]
        per_class = 24 if info.task == "segmentation" else 4
        if info.task == "segmentation" and options.keep_masks:
            # A byte a pixel and class; compressed it is less.
            per_class += info.size**2
        predictions = predicted_images * (per_class * len(info.classes) + 16)
        weights.append(weight_bytes)
        when_finished += weight_bytes + predictions
    # At the worst the largest ones run at the same time.
    largest = sorted(weights)[-side_by_side:]
    return when_finished + 6 * sum(largest) + sum(shared.values())


def check_space(todo: Sequence[TrialConfig], paths: SweepPaths, options: RunOptions, *, side_by_side: int) -> None:
    """Raise ValueError when the disk of the run folder has too little room for the rest of the sweep."""
    needed = needed_bytes(todo, options, side_by_side=side_by_side)
    free = shutil.disk_usage(paths.folder).free
    if needed > free:
        raise ValueError(
            f"{paths.folder} has {free / 1e9:.1f} GB free"
            f" and the {len(todo)} trials left need {needed / 1e9:.1f} GB;"
            " make space, move the run folder and resume it there,"
            " or begin elsewhere: `raypatch run` and --runs-dir"
        )
