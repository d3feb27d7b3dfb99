"""From run folders to data frames: trials with their level, epochs, and what is missing or cannot be used.

Light: needs pandas, neither ray nor torch.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from raypatch.analysis.columns import EPOCH_KEYS, MISSING_COLUMNS, trial_columns
from raypatch.analysis.question import RunContent, factors_of_runs, levels_of
from raypatch.analysis.trial_rows import Problem, Reading, read_trial
from raypatch.analysis.without_twins import LEFT_OUT, leave_out_twins
from raypatch.config import TrialConfig
from raypatch.factors import Factor
from raypatch.results import (
    DamagedFileError,
    Expectation,
    SweepPaths,
    SweepRecord,
    TrialPaths,
    read_epochs,
    read_sweep,
)
from raypatch.results.repeated import read_repeated


class UnusableResultWarning(UserWarning):
    """Something in a run folder could not be used; the message says what and why."""


@dataclass(frozen=True)
class Results:
    """All that one or several run folders hold.

    trials: one row per trial that is over, columns as in `trial_columns`; level is that of the first factor. levels:
    of each of these trials its level of every factor, a column per factor. missing: planned trials without a usable
    result, columns as in MISSING_COLUMNS; state is `not started`, `unfinished`, `failed` or `damaged`. factors: what is
    compared. metric: the score that the study asks about, None for the task's own. expect: what publications state of
    the first factor. records: sweep.json of each run that has a readable one. provenance: one row per distinct
    provenance of trials. repeated: by dataset the test images that repeat one of train or val, as far as the runs
    know; without_twins: whether these are left out of all test scores.
    """

    trials: pd.DataFrame
    levels: pd.DataFrame
    missing: pd.DataFrame
    problems: tuple[Problem, ...]
    factors: tuple[Factor, ...]
    metric: str | None
    expect: tuple[Expectation, ...]
    records: dict[str, SweepRecord]
    provenance: pd.DataFrame
    repeated: dict[str, tuple[int, ...]] = field(default_factory=dict)
    without_twins: bool = False


def load_study(*runs: Path | str, compare: Sequence[str] | None = None, without_twins: bool = False) -> Results:
    """Read run folders, finished or not. A trial that is in several of them counts once, a finished one first.

    Trials of earlier commands in a folder count as results too, though sweep.json no longer plans them. compare:
    factors to ask about instead of those of the study. without_twins: leave out test images that repeat one of train or
    val. Damaged and newer files, and trials that have no level of a
    factor, are reported as problems. Raises ValueError for a folder that is no run folder, for runs that compare
    different things, and for a factor that cannot be compared.
    """
    if not runs:
        raise ValueError("no run folder given; give one that `raypatch run` made")
    reading = Reading()
    repeated: dict[str, tuple[int, ...]] = {}
    for name, folder in _run_names([Path(run) for run in runs]).items():
        _read_run(name, SweepPaths(folder), reading)
        repeated |= read_repeated(SweepPaths(folder).twins)
    if without_twins:
        leave_out_twins(reading, repeated)
    contents = [_content_of(run, reading) for run in reading.runs]
    factors = factors_of_runs(contents, compare)
    trials, levels = _trial_frames(reading, contents, factors)
    records = {content.name: content.record for content in contents if content.record is not None}
    asked = [record for record in records.values() if record.metric]
    return Results(
        trials=trials,
        levels=levels,
        missing=_missing_frame(reading, contents, factors),
        problems=tuple(reading.problems),
        factors=factors,
        metric=asked[0].metric if asked else None,
        expect=_expectations(records, factors),
        records=records,
        provenance=pd.DataFrame(reading.provenance).fillna("").value_counts().rename("trials").reset_index(),
        repeated=repeated,
        without_twins=without_twins,
    )


def load_trials(*runs: Path | str) -> pd.DataFrame:
    """Return one row per trial that is over, columns as in `trial_columns`; a warning for each that is left out.

    level, level_rank and kind say which level of the (first) factor a trial has. Raises ValueError for a folder that
    is no run folder.
    """
    results = load_study(*runs)
    for problem in results.problems:
        warnings.warn(str(problem), UnusableResultWarning, stacklevel=2)
    return results.trials


def missing_trials(*runs: Path | str) -> pd.DataFrame:
    """Return the planned trials that have no usable result, columns as in MISSING_COLUMNS."""
    return load_study(*runs).missing


def load_epochs(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per epoch of each of the `trials`: run, trial_id, dataset, level, seed and EpochRow's numbers.

    Losses in nats per image, other scores 0 to 1, seconds per epoch, images per second in training. A trial whose
    epochs.jsonl is damaged is left out with an UnusableResultWarning.
    """
    keys = list(EPOCH_KEYS)
    rows: list[dict[str, Any]] = []
    for key, folder in zip(trials[keys].itertuples(index=False, name=None), trials["folder"], strict=True):
        try:
            epochs = read_epochs(TrialPaths(Path(folder)).epochs)
        except DamagedFileError as error:
            warnings.warn(str(error), UnusableResultWarning, stacklevel=2)
            continue
        rows.extend(dict(zip(keys, key, strict=True)) | row.flat() for row in epochs)
    return pd.DataFrame(rows, columns=None if rows else [*keys, "epoch", "train_loss", "val_loss"])


def _run_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each run by its folder, by its whole path where two folders share a name; the same folder counts once."""
    resolved = list(dict.fromkeys(folder.resolve() for folder in folders))
    for folder in resolved:
        paths = SweepPaths(folder)
        if not paths.trials.is_dir() and not paths.record.exists():
            raise ValueError(f"{folder} is no run folder: it has neither sweep.json nor trials/")
    names = [folder.name for folder in resolved]
    return {(f.name if names.count(f.name) == 1 else str(f)): f for f in resolved}


def _read_run(run: str, paths: SweepPaths, reading: Reading) -> None:
    """Read a run's trials, and its record with what that plans and does not have."""
    states: dict[str, str] = {}
    for trial in paths.trial_folders():
        states[trial.folder.name] = read_trial(run, trial, reading)
    reading.runs[run] = None
    try:
        record = read_sweep(paths.record)
    except DamagedFileError as error:
        reading.problems.append(Problem(paths.record, f"{error}; trials that are missing cannot be listed"))
        return
    reading.runs[run] = record
    for config in record.trials:
        state = states.get(config.trial_id(), "not started")
        if state not in ("ok", "pruned"):
            reading.missing.append((run, config, state))


def _content_of(run: str, reading: Reading) -> RunContent:
    found = [config for row, config in zip(reading.rows, reading.configs, strict=True) if row["run"] == run]
    record = reading.runs[run]
    return RunContent(run, record, (*found, *(record.trials if record else ())))


def _trial_frames(
    reading: Reading, contents: Sequence[RunContent], factors: Sequence[Factor]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials that have a level of every factor, and these levels; the others become problems."""
    by_run = {content.name: content for content in contents}
    kept, levels = [], []
    for row, config in zip(reading.rows, reading.configs, strict=True):
        own = levels_of(config, row["trial_id"], factors, by_run[row["run"]])
        if isinstance(own, str):
            reading.problems.append(Problem(Path(row["folder"]), own))
            continue
        kept.append(row | {"level": own[0], "level_rank": factors[0].rank(own[0]), "kind": "single"})
        levels.append(own)
    columns = [*trial_columns(reading.metrics), *([LEFT_OUT] if any(LEFT_OUT in row for row in kept) else [])]
    trials = pd.DataFrame(kept, columns=columns)
    for name in _fields_of_numbers():  # a field that some trials lack must not turn the others' numbers into floats
        if trials[name].isna().any() and trials[name].notna().any():
            trials[name] = trials[name].astype("Int64")
    clashing = trials.groupby("dataset_label")["dataset"].transform("nunique") > 1
    trials["dataset_label"] = trials["dataset_label"].mask(clashing, trials["dataset"])
    order = trials.sort_values(["dataset", "level_rank", "seed", "trial_id"]).index
    named = pd.DataFrame(levels, columns=[factor.name for factor in factors])
    return trials.loc[order].reset_index(drop=True), named.loc[order].reset_index(drop=True)


def _fields_of_numbers() -> list[str]:
    """The fields of a trial that are an integer or absent."""
    return [name for name, info in TrialConfig.model_fields.items() if info.annotation == (int | None)]


def _missing_frame(reading: Reading, contents: Sequence[RunContent], factors: Sequence[Factor]) -> pd.DataFrame:
    by_run = {content.name: content for content in contents}
    rows = []
    for run, config, state in reading.missing:
        own = levels_of(config, config.trial_id(), factors, by_run[run])
        level = "" if isinstance(own, str) else ", ".join(own)
        rows.append((run, config.trial_id(), config.dataset, config.dataset_label, level, config.seed, state))
    return pd.DataFrame(rows, columns=list(MISSING_COLUMNS))


def _expectations(records: dict[str, SweepRecord], factors: Sequence[Factor]) -> tuple[Expectation, ...]:
    """What the studies expect, each once, where the first factor is still the one that they ask about."""
    found: list[Expectation] = []
    for record in records.values():
        if record.factors and record.factors[0].name == factors[0].name:
            found.extend(record.expect)
    return tuple(dict.fromkeys(found))
