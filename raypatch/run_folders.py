"""Run folders as such: what lies beneath a folder, and what a finished run can do without."""

import time
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from raypatch.config import TrialConfig, fields_of_role
from raypatch.factors import ask_search, ask_which, field_label
from raypatch.results import (
    DamagedFileError,
    SweepPaths,
    SweepRecord,
    TrialPaths,
    read_config,
    read_result,
    read_sweep,
)
from raypatch.selection import select_best, selection_score
from raypatch.storage.files import hold_lock, lock_holder


@dataclass(frozen=True)
class RunSummary:
    """A run folder in a list. age_seconds: since something was last written."""

    name: str
    state: str
    question: str
    size_bytes: int
    age_seconds: float


@dataclass(frozen=True)
class Removable:
    """What `clean` would remove. weights, events: how many files of each kind."""

    files: tuple[Path, ...]
    weights: int
    events: int
    size_bytes: int

    def describe(self) -> str:
        """For people."""
        return (
            f"{self.weights} weight files of trials that are not the best of their level, {self.events} event files:"
            f" {word_bytes(self.size_bytes)}"
        )


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the run folders directly in `folder`, the newest first.

    Raises ValueError if there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give the folder where run folders lie")
    runs = []
    for subfolder in sorted(folder.iterdir()):
        paths = SweepPaths(subfolder)
        if paths.record.is_file():
            runs.append(_summarize(paths))
    return sorted(runs, key=lambda run: run.age_seconds)


def _summarize(paths: SweepPaths) -> RunSummary:
    size, newest = 0, 0.0
    for path in paths.folder.rglob("*"):
        # A link counts as itself: what it points to may be on another disk, or be gone.
        facts = path.lstat()
        if not path.is_dir():
            size += facts.st_size
            newest = max(newest, facts.st_mtime)
    try:
        record = read_sweep(paths.record)
        state, question = _state(record, paths), question_of(record)
    except DamagedFileError:
        # One folder that cannot be read must not hide the others.
        state, question = "sweep.json cannot be read", ""
    return RunSummary(paths.folder.name, state, question, size, time.time() - newest)


def question_of(record: SweepRecord) -> str:
    """Return the question of a run; a folder of schema 1 asks which patch size."""
    compared = [factor.name for factor in record.factors] or ["patch_size"]
    if record.search is not None:
        return ask_search(list(record.search.settings.fields), compared)
    return ask_which([field_label(name) for name in compared])


def _state(record: SweepRecord, paths: SweepPaths) -> str:
    """`running, 3/8 done`, `8 done, 1 failed`, `stopped, 3/8 done`."""
    over, failed = 0, 0
    for config in record.trials:
        try:
            result = read_result(paths.trial(config.trial_id()).result)
        except DamagedFileError:
            continue
        if result is not None:
            over += 1
            failed += result.status == "failed"
    total = len(record.trials)
    problems = f", {failed} failed" if failed else ""
    if lock_holder(paths.lock):
        return f"running, {over}/{total} done{problems}"
    if over < total:
        return f"stopped, {over}/{total} done{problems}"
    return f"{total} done{problems}"


def find_removable(folder: Path) -> Removable:
    """Return what a run can do without: event files, and weights of all but the best trial per level.

    The best is by validation, among trials of the same dataset, levels and other factors: seeds
    and recipes compete. Trials that are not over keep everything. Raises ValueError for a folder
    that is no run folder.
    """
    paths = SweepPaths(folder)
    record = read_sweep(paths.record)
    groups: dict[Hashable, list[tuple[TrialConfig, float | None]]] = {}
    over: list[TrialPaths] = []
    for trial in paths.trial_folders():
        try:
            config, result = read_config(trial.config), read_result(trial.result)
        except DamagedFileError:
            continue
        if result is None:
            continue
        over.append(trial)
        # What others start from stays: some may be still to run.
        if trial.best_weights.exists() and not config.makes_weights:
            key = _level_key(config, record)
            groups.setdefault(key, []).append((config, selection_score(config, result)))
    events, weights = [], []
    for trial in over:
        events += trial.event_files()
    for members in groups.values():
        best = select_best(members)
        if best is None:
            # No trial has a score, so none is known to be worse than another.
            continue
        for config, _ in members:
            if config != best:
                weights.append(paths.trial(config.trial_id()).best_weights)
    files = (*weights, *events)
    size = sum(path.stat().st_size for path in files)
    return Removable(files, len(weights), len(events), size)


def _level_key(config: TrialConfig, record: SweepRecord) -> Hashable:
    """What trials share that compete: dataset, levels, and all fields that are factors by nature."""
    fields = sorted(fields_of_role("factor") | fields_of_role("block"))
    values = tuple(getattr(config, name) for name in fields)
    return record.levels.get(config.trial_id()), values


def remove_files(folder: Path, removable: Removable) -> None:
    """Remove the files while nobody else works in the folder. Raises LockedError if somebody does."""
    with hold_lock(SweepPaths(folder).lock):
        for path in removable.files:
            path.unlink(missing_ok=True)


def word_bytes(size: int) -> str:
    """Bytes for people: 320 B, 5.2 MB, 1.3 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
