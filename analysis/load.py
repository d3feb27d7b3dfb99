"""From run folders to data frames: trials, epochs, and what is missing or cannot be used.

Light: needs pandas, neither ray nor torch.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from raypatch.config import TrialConfig
from raypatch.results import (
    DamagedFileError,
    SweepPaths,
    SweepRecord,
    TrialPaths,
    TrialResult,
    read_config,
    read_epochs,
    read_result,
    read_sweep,
)

SCORES = ("loss", "accuracy", "balanced_accuracy", "auc")
METRICS = {"accuracy": "ACC", "balanced_accuracy": "bACC", "auc": "AUC"}
"""The scores that tables and plots show, with their heading."""

HEADLINE = "balanced_accuracy"
"""The score that the answer of a report is about, as in arXiv 2602.18614."""

RESULT_COLUMNS = {
    "run": "name of the run folder",
    "trial_id": "the trial's identity, the same in every run",
    "folder": "path of the trial folder",
    "status": "ok, pruned (stopped early by a search) or failed",
    "dataset_label": "the dataset's name for people: an own file's without its digest, unless two share it",
    "task": "binary, multiclass, ordinal or multilabel",
    "dimensions": "2 (images) or 3 (volumes)",
    "channels": "1 (grey) or 3 (RGB)",
    "classes": "class names in label order, a tuple",
    "train_images": "images trained on",
    "val_images": "images in the validation split",
    "test_images": "images in the test split",
    **{f"val_{name}": f"{name} on the validation split, best epoch" for name in SCORES},
    **{f"test_{name}": f"{name} on the test split, best epoch; NaN where status is not ok" for name in SCORES},
    "parameters": "weights, count",
    "tokens": "patches per image, without the class token",
    "gflops": "2 x multiply-accumulates per image and forward pass, 1e9",
    "gflops_without_attention": "the same without the attention products, as most papers count",
    "epochs_done": "epochs completed",
    "best_epoch": "epoch of the kept weights, counted from 1",
    "train_seconds": "all epochs, validation included, seconds",
    "images_per_second": "training, median over the epochs",
    "peak_memory_gb": "of the device, of the process on a CPU, 1e9 bytes",
    "precision_used": "the precision that auto became",
    "device": "what it ran on",
    "error": "last line of a failed trial's traceback",
}
CONFIG_COLUMNS = {name: info.description or "" for name, info in TrialConfig.model_fields.items()}
COLUMNS: dict[str, str] = RESULT_COLUMNS | CONFIG_COLUMNS
"""What each column of `load_trials` holds, with its unit. Scores run from 0 to 1, losses are nats per image."""

EPOCH_COLUMNS = ("epoch", "train_loss", *(f"val_{name}" for name in SCORES), "lr", "seconds", "images_per_second")
MISSING_COLUMNS = ("run", "trial_id", "dataset", "dataset_label", "patch_size", "seed", "state")


class UnusableResultWarning(UserWarning):
    """Something in a run folder could not be used; the message says what and why."""


@dataclass(frozen=True)
class Problem:
    """Something in a run folder that was left out: where it is and why."""

    place: Path
    reason: str

    def __str__(self) -> str:
        return self.reason if self.reason.startswith(str(self.place)) else f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Study:
    """All that one or several run folders hold.

    trials: one row per trial that is over, columns as in COLUMNS. missing: planned trials without a usable
    result, columns as in MISSING_COLUMNS; state is `not started`, `unfinished`, `failed` or `damaged`.
    records: sweep.json of each run that has a readable one. provenance: one row per distinct provenance of trials.
    """

    trials: pd.DataFrame
    missing: pd.DataFrame
    problems: tuple[Problem, ...]
    records: dict[str, SweepRecord]
    provenance: pd.DataFrame


@dataclass
class _Reading:
    """What is gathered while the folders are read."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: list[tuple[Any, ...]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    records: dict[str, SweepRecord] = field(default_factory=dict)
    provenance: list[dict[str, str]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)


def load_study(*runs: Path | str) -> Study:
    """Read run folders, finished or not. A trial that is in several of them counts once, a finished one first.

    Trials of earlier commands in a folder count as results too, though sweep.json no longer plans them.
    Damaged and newer files are reported as problems. Raises ValueError for a folder that is no run folder.
    """
    if not runs:
        raise ValueError("no run folder given; give one that `raypatch run` made")
    reading = _Reading()
    for name, folder in _run_names([Path(run) for run in runs]).items():
        _read_run(name, SweepPaths(folder), reading)
    trials = pd.DataFrame(reading.rows, columns=list(COLUMNS))
    clashing = trials.groupby("dataset_label")["dataset"].transform("nunique") > 1
    trials["dataset_label"] = trials["dataset_label"].mask(clashing, trials["dataset"])
    provenance = pd.DataFrame(reading.provenance).fillna("").value_counts().rename("trials").reset_index()
    return Study(
        trials=trials.sort_values(["dataset", "patch_size", "seed", "trial_id"], ignore_index=True),
        missing=pd.DataFrame(reading.missing, columns=list(MISSING_COLUMNS)),
        problems=tuple(reading.problems),
        records=reading.records,
        provenance=provenance,
    )


def load_trials(*runs: Path | str) -> pd.DataFrame:
    """Return one row per trial that is over, columns as in COLUMNS; an UnusableResultWarning for each left out.

    Raises ValueError for a folder that is no run folder.
    """
    study = load_study(*runs)
    for problem in study.problems:
        warnings.warn(str(problem), UnusableResultWarning, stacklevel=2)
    return study.trials


def missing_trials(*runs: Path | str) -> pd.DataFrame:
    """Return the planned trials that have no usable result, columns as in MISSING_COLUMNS."""
    return load_study(*runs).missing


def load_epochs(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per epoch of each of the `trials`: run, trial_id, dataset, patch_size, seed and EpochRow's fields.

    Losses in nats per image, other figures 0 to 1, seconds per epoch, images per second in training. A trial whose
    epochs.jsonl is damaged is left out with an UnusableResultWarning.
    """
    keys = ["run", "trial_id", "dataset", "patch_size", "seed"]
    rows: list[dict[str, Any]] = []
    for key, folder in zip(trials[keys].itertuples(index=False, name=None), trials["folder"], strict=True):
        try:
            epochs = read_epochs(TrialPaths(Path(folder)).epochs)
        except DamagedFileError as error:
            warnings.warn(str(error), UnusableResultWarning, stacklevel=2)
            continue
        rows.extend(dict(zip(keys, key, strict=True)) | row.flat() for row in epochs)
    return pd.DataFrame(rows, columns=None if rows else [*keys, *EPOCH_COLUMNS])


def _run_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each run by its folder, by its whole path where two folders share a name; the same folder counts once."""
    resolved = list(dict.fromkeys(folder.resolve() for folder in folders))
    for folder in resolved:
        paths = SweepPaths(folder)
        if not paths.trials.is_dir() and not paths.record.exists():
            raise ValueError(f"{folder} is no run folder: it has neither sweep.json nor trials/")
    names = [folder.name for folder in resolved]
    return {(f.name if names.count(f.name) == 1 else str(f)): f for f in resolved}


def _read_run(run: str, paths: SweepPaths, reading: _Reading) -> None:
    states: dict[str, str] = {}
    for trial in paths.trial_folders():
        states[trial.folder.name] = _read_trial(run, trial, reading)
    try:
        record = read_sweep(paths.record)
    except DamagedFileError as error:
        reading.problems.append(Problem(paths.record, f"{error}; trials that are missing cannot be listed"))
        return
    reading.records[run] = record
    for config in record.trials:
        trial_id = config.trial_id()
        state = states.get(trial_id, "not started")
        if state not in ("ok", "pruned"):
            cell = (config.dataset, config.dataset_label, config.patch_size, config.seed)
            reading.missing.append((run, trial_id, *cell, state))


def _read_trial(run: str, paths: TrialPaths, reading: _Reading) -> str:
    """Append the trial's row, or a problem, and return its state."""
    try:
        result = read_result(paths.result)
        if result is None:
            return "unfinished"
        config = read_config(paths.config)
    except DamagedFileError as error:
        reading.problems.append(Problem(paths.folder, str(error)))
        return "damaged"
    if not paths.folder.name == result.trial_id == config.trial_id():
        reason = "config.json, result.json and the folder's name speak of different trials; remove the folder"
        reading.problems.append(Problem(paths.folder, reason))
        return "damaged"
    row = _trial_row(run, paths, config, result)
    place = reading.places.setdefault(result.trial_id, len(reading.rows))
    if place == len(reading.rows):
        reading.rows.append(row)
    else:
        kept, left = reading.rows[place], row
        if result.status == "ok" != kept["status"]:
            reading.rows[place], kept, left = row, row, kept
        reading.problems.append(
            Problem(Path(left["folder"]), f"the same trial is in {kept['folder']}; that one counts")
        )
    reading.provenance.append({"run": run, "device": result.device} | result.provenance)
    return result.status


def _trial_row(run: str, paths: TrialPaths, config: TrialConfig, result: TrialResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": run,
        "trial_id": result.trial_id,
        "folder": str(paths.folder),
        "status": result.status,
        "dataset_label": config.dataset_label,
        "epochs_done": result.epochs,
        "best_epoch": result.best_epoch,
        "train_seconds": result.train_seconds,
        "images_per_second": result.images_per_second,
        "peak_memory_gb": result.peak_memory_bytes / 1e9,
        "precision_used": result.precision,
        "device": result.device,
        "error": (result.error or "").strip().rpartition("\n")[2],
    }
    for split, scores in (("val", result.val), ("test", result.test)):
        if scores is not None:
            row |= {f"{split}_{name}": scores.get(name, math.nan) for name in SCORES}
    if result.dataset is not None:
        facts = result.dataset
        row |= {"task": facts.task, "dimensions": facts.dimensions, "channels": facts.channels}
        row |= {"classes": facts.classes}
        row |= dict(zip(("train_images", "val_images", "test_images"), facts.counts, strict=True))
    if result.model is not None:
        row |= dict(result.model)
    return dict(config) | row  # what the dataset's labels ask wins over a task that the config leaves open


def describe_columns(names: Iterable[str] = COLUMNS) -> pd.DataFrame:
    """Return what each column of `load_trials` means: column, meaning."""
    return pd.DataFrame([(name, COLUMNS[name]) for name in names], columns=["column", "meaning"])
