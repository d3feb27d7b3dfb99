"""From run folders to data frames: trials with their level, epochs, and what is missing or cannot be used.

Light: needs pandas, neither ray nor torch.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from raypatch.analysis.frames.columns import EPOCH_KEYS, MISSING_COLUMNS, trial_columns
from raypatch.analysis.frames.question import RunContent, factors_of_runs, levels_of
from raypatch.analysis.frames.trial_rows import Problem, Reading, Stage, read_trial
from raypatch.analysis.frames.without_twins import LEFT_OUT, leave_out_twins
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
from raypatch.results.repeated import read_repeated_images


class UnusableResultWarning(UserWarning):
    """Something in a run folder could not be used; the message says what and why."""


@dataclass(frozen=True)
class Results:
    """All that one or several run folders hold.

    trials: one row per trial that is over, columns as in `trial_columns`; level is that of the
    first factor. levels: of each of these trials its level of every factor, a column per factor.
    missing: planned trials without a usable result, columns as in MISSING_COLUMNS; state is `not
    started`, `unfinished`, `failed` or `damaged`. factors: what is compared. metric: the score that
    the study asks about, None for the task's own. expect: what publications state of the first
    factor. records: sweep.json of each run that has a readable one. provenance: one row per
    distinct provenance of trials. repeated: by dataset, and fold where trials have one, the test
    images that repeat one of train or val, as far as the runs know; data_findings: by own dataset
    what else a check found; without_twins: whether these are left out of all test scores. stages: trials that make
    weights for others. median: whether tables show the median over the repeats in place of the mean.
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
    data_findings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    without_twins: bool = False
    stages: tuple[Stage, ...] = ()
    median: bool = False


def load_study(*runs: Path | str, compare: Sequence[str] | None = None, without_twins: bool = False) -> Results:
    """Read run folders, finished or not. A trial that is in several of them counts once, a finished one first.

    Trials of earlier commands in a folder count as results too, though sweep.json no longer plans
    them. compare: factors to ask about instead of those of the study. without_twins: leave out test
    images that repeat one of train or val. Damaged and newer files, and trials that have no level
    of a factor, are reported as problems. Raises ValueError for a folder that is no run folder, for
    runs that compare different things, and for a factor that cannot be compared.
    """
    if not runs:
        raise ValueError("no run folder given; give one that `raypatch run` made")
    reading = Reading()
    repeated: dict[str, tuple[int, ...]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for name, folder in _run_names(runs).items():
        paths = SweepPaths(folder)
        _read_run(name, paths, reading)
        known = read_repeated_images(paths.twins)
        repeated |= known.test
        found |= known.findings
    if without_twins:
        leave_out_twins(reading, repeated)
    contents = _run_contents(reading)
    factors = factors_of_runs(list(contents.values()), compare)
    trials, levels = _trial_frames(reading, contents, factors)
    records: dict[str, SweepRecord] = {}
    for run, content in contents.items():
        if content.record is not None:
            records[run] = content.record
    asked = [record.metric for record in records.values() if record.metric]
    provenance = pd.DataFrame(reading.provenance).fillna("")
    return Results(
        trials=trials,
        levels=levels,
        missing=_missing_frame(reading, contents, factors),
        problems=tuple(reading.problems),
        factors=factors,
        metric=asked[0] if asked else None,
        expect=_expectations(records, factors),
        records=records,
        provenance=provenance.value_counts().rename("trials").reset_index(),
        repeated=repeated,
        data_findings=found,
        without_twins=without_twins,
        stages=tuple(reading.stages),
        median=any(record.repeats == "median" for record in records.values()),
    )


def load_trials(*runs: Path | str) -> pd.DataFrame:
    """Return one row per trial that is over, columns as in `trial_columns`; a warning for each that is left out.

    level, level_rank and kind say which level of the (first) factor a trial has. Raises ValueError
    for a folder that is no run folder.
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

    Losses in nats per image, other scores 0 to 1, seconds per epoch, images per second in training.
    A trial whose epochs.jsonl is damaged is left out with an UnusableResultWarning.
    """
    rows: list[dict[str, Any]] = []
    for trial in trials.to_dict("records"):
        try:
            epochs = read_epochs(TrialPaths(Path(trial["folder"])).epochs)
        except DamagedFileError as error:
            warnings.warn(str(error), UnusableResultWarning, stacklevel=2)
            continue
        own = {key: trial[key] for key in EPOCH_KEYS}
        for epoch in epochs:
            rows.append(own | epoch.flat())
    if not rows:
        return pd.DataFrame(columns=[*EPOCH_KEYS, "epoch", "train_loss", "val_loss"])
    return pd.DataFrame(rows)


def _run_names(runs: Sequence[Path | str]) -> dict[str, Path]:
    """Name each run by its folder, by its whole path where two folders share a name; the same folder counts once."""
    folders = list(dict.fromkeys(Path(run).resolve() for run in runs))
    for folder in folders:
        paths = SweepPaths(folder)
        if not paths.trials.is_dir() and not paths.record.exists():
            raise ValueError(f"{folder} is no run folder: it has neither sweep.json nor trials/")
    count = Counter(folder.name for folder in folders)
    names = {}
    for folder in folders:
        is_unique = count[folder.name] == 1
        names[folder.name if is_unique else str(folder)] = folder
    return names


def _read_run(run: str, paths: SweepPaths, reading: Reading) -> None:
    """Read a run's trials, and its record with what that plans and does not have."""
    states: dict[str, str] = {}
    for trial in paths.trial_folders():
        states[trial.folder.name] = read_trial(run, trial, reading)
    # Known from here on, even where the record cannot be read: its trials count all the same.
    reading.runs[run] = None
    try:
        record = read_sweep(paths.record)
    except DamagedFileError as error:
        reason = str(error) if paths.record.exists() else "there is no such file"
        reading.problems.append(Problem(paths.record, f"{reason}; trials that are missing cannot be listed"))
        return
    reading.runs[run] = record
    for config in _measured(record):
        state = states.get(config.trial_id(), "not started")
        if state not in ("ok", "pruned"):
            reading.missing.append((run, config, state))


def _run_contents(reading: Reading) -> dict[str, RunContent]:
    """The runs by name, each with the trials that it has and, behind these, those that it plans."""
    configs: defaultdict[str, list[TrialConfig]] = defaultdict(list)
    for row, config in zip(reading.rows, reading.configs, strict=True):
        configs[row["run"]].append(config)
    contents = {}
    for run, record in reading.runs.items():
        if record is not None:
            configs[run] += _measured(record)
        contents[run] = RunContent(run, record, tuple(configs[run]))
    return contents


def _measured(record: SweepRecord) -> list[TrialConfig]:
    """The planned trials that are measured: those that make weights are no levels."""
    return [config for config in record.trials if not config.makes_weights]


def _trial_frames(
    reading: Reading, contents: Mapping[str, RunContent], factors: Sequence[Factor]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials that have a level of every factor, and these levels; the others become problems."""
    rows, levels = [], []
    for row, config in zip(reading.rows, reading.configs, strict=True):
        own = levels_of(config, row["trial_id"], factors, contents[row["run"]])
        if isinstance(own, str):
            reading.problems.append(Problem(Path(row["folder"]), own))
            continue
        first = {"level": own[0], "level_rank": factors[0].rank(own[0]), "kind": "single"}
        rows.append(row | first)
        levels.append(own)
    columns = list(trial_columns(reading.metrics))
    if any(LEFT_OUT in row for row in rows):
        columns.append(LEFT_OUT)
    trials = _name_apart(_keep_integers(pd.DataFrame(rows, columns=columns)))
    named = pd.DataFrame(levels, columns=[factor.name for factor in factors])
    order = trials.sort_values(["dataset", "level_rank", "seed", "trial_id"]).index
    return trials.loc[order].reset_index(drop=True), named.loc[order].reset_index(drop=True)


def _keep_integers(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with whole numbers in the fields that are an integer or absent.

    pandas makes floats of integers among which one is absent, and 14.0 is no patch size.
    """
    for name, info in TrialConfig.model_fields.items():
        is_absent = trials[name].isna()
        if info.annotation == (int | None) and is_absent.any() and not is_absent.all():
            trials[name] = trials[name].astype("Int64")
    return trials


def _name_apart(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with the whole name of a dataset where two share a label, as own files of one name in two folders."""
    clashing = trials.groupby("dataset_label")["dataset"].transform("nunique") > 1
    trials["dataset_label"] = trials["dataset_label"].mask(clashing, trials["dataset"])
    return trials


def _missing_frame(reading: Reading, contents: Mapping[str, RunContent], factors: Sequence[Factor]) -> pd.DataFrame:
    rows = []
    for run, config, state in reading.missing:
        own = levels_of(config, config.trial_id(), factors, contents[run])
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
