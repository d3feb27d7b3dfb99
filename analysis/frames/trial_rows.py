"""One trial folder becomes one row, or a problem that says why not."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypatch.analysis.frames.columns import CONFIG_COLUMNS, score_column
from raypatch.config import TrialConfig
from raypatch.results import DamagedFileError, SweepRecord, TrialPaths, TrialResult, read_config, read_result


@dataclass(frozen=True)
class Problem:
    """Something in a run folder that was left out: where it is and why."""

    place: Path
    reason: str

    def __str__(self) -> str:
        return self.reason if self.reason.startswith(str(self.place)) else f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Stage:
    """A trial that makes weights for others and is no level itself. folder: of the trial."""

    config: TrialConfig
    result: TrialResult
    folder: Path


@dataclass
class Reading:
    """What is gathered while folders are read.

    rows, configs: of the same trials. missing: run, config and state of planned trials without a
    result. metrics: the names of all scores that were found, in the order of the files. places: by
    trial id its row. stages: the trials that make weights.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    configs: list[TrialConfig] = field(default_factory=list)
    missing: list[tuple[str, TrialConfig, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    runs: dict[str, SweepRecord | None] = field(default_factory=dict)
    provenance: list[dict[str, str]] = field(default_factory=list)
    metrics: dict[str, None] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)


def read_trial(run: str, paths: TrialPaths, reading: Reading) -> str:
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
    if config.makes_weights:
        reading.stages.append(Stage(config, result, paths.folder))
        return result.status
    # A dictionary without values: a set that keeps the order.
    for scores in (result.val, result.test):
        reading.metrics |= dict.fromkeys(scores or {})
    _keep_better(_trial_row(run, paths, config, result), config, reading)
    reading.provenance.append({"run": run, "device": result.device} | result.provenance)
    return result.status


def _keep_better(row: dict[str, Any], config: TrialConfig, reading: Reading) -> None:
    """Keep one row per trial: the first, or the first that ran through."""
    place = reading.places.setdefault(row["trial_id"], len(reading.rows))
    if place == len(reading.rows):
        reading.rows.append(row)
        reading.configs.append(config)
        return
    kept, left = reading.rows[place], row
    if row["status"] == "ok" and kept["status"] != "ok":
        kept, left = row, kept
        reading.rows[place] = kept
    reading.problems.append(Problem(Path(left["folder"]), f"the same trial is in {kept['folder']}; that one counts"))


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
        for name, score in (scores or {}).items():
            row[score_column(split, name)] = math.nan if score is None else score
    if result.dataset is not None:
        facts = result.dataset
        row |= {"task": facts.task, "dimensions": facts.dimensions, "channels": facts.channels}
        row |= {"classes": facts.classes, "balance": facts.balance, "patients": facts.patients}
        row["train_images"], row["val_images"], row["test_images"] = facts.counts
    if result.model is not None:
        row |= dict(result.model)
    for name in CONFIG_COLUMNS:
        row[name] = getattr(config, name)
    return row
