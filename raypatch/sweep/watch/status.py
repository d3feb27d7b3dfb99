"""How a sweep stands, read from its files alone: works from anywhere, and after the sweep died."""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

from rich.console import Console

from raypatch.config import TrialConfig
from raypatch.factors import levels_by_fields
from raypatch.results import (
    DamagedFileError,
    NewerSchemaError,
    Scores,
    SweepPaths,
    SweepRecord,
    TrialPaths,
    read_epochs,
    read_result,
    read_sweep,
)
from raypatch.storage.files import lock_holder
from raypatch.sweep.watch.names import what_varies

State = Literal["ok", "pruned", "failed", "running", "stopped", "waiting", "damaged"]
_WORTH_SAYING: tuple[State, ...] = ("failed", "damaged", "running", "stopped", "waiting")


@dataclass(frozen=True)
class TrialStatus:
    """One planned trial.

    levels: of what the sweep compares, by factor. varied: what else differs in the sweep, in words.
    state: `stopped` was begun, and nobody works on it now. epoch, step: completed. steps: where
    these, not epochs, are the length. seconds: spent so far. val: validation scores of the last
    epoch, None for undefined ones. best_epoch, best_val: of the kept weights, once the trial is
    over. selection: the score that chooses these. alarm: what was wrong at its last evaluation.
    """

    trial_id: str
    config: TrialConfig
    levels: Mapping[str, str]
    varied: str
    state: State
    epochs: int
    selection: str
    steps: int | None = None
    epoch: int = 0
    step: int = 0
    val: Mapping[str, float | None] = field(default_factory=dict)
    best_epoch: int | None = None
    best_val: Mapping[str, float | None] | None = None
    images_per_second: float | None = None
    peak_memory_bytes: int | None = None
    seconds: float = 0.0
    error: str | None = None
    alarm: str | None = None

    @property
    def parent(self) -> str | None:
        """The trial whose weights this one starts from; None where they are there from the start."""
        return self.config.parent


@dataclass(frozen=True)
class SweepStatus:
    """How the trials of the last command stand.

    held_by: who runs the sweep now, None for nobody. others: more trial folders, of earlier commands.
    """

    folder: str
    study: str
    command: str
    held_by: str | None
    trials: tuple[TrialStatus, ...]
    others: int

    def count(self, *states: State) -> int:
        """Trials in any of these states."""
        return sum(trial.state in states for trial in self.trials)

    def as_json(self) -> str:
        """For scripts: everything, counts first."""
        counts = {state: self.count(state) for state in get_args(State)}
        return json.dumps({"counts": counts, **asdict(self)}, indent=1, default=_as_fields)


def _as_fields(config: TrialConfig) -> dict[str, object]:
    """All fields of a trial, its defaults too: a script need not know these."""
    return config.model_dump(mode="json")


def read_status(paths: SweepPaths) -> SweepStatus:
    """Read how the sweep stands. Raises DamagedFileError where there is no readable sweep.json."""
    record = read_sweep(paths.record)
    describe = what_varies(record)
    trials = {}
    for config in record.trials:
        trial_id = config.trial_id()
        named = TrialStatus(
            trial_id,
            config,
            levels=_levels_of(record, config),
            varied=describe(config),
            state="waiting",
            epochs=config.epochs,
            selection=config.selection,
            steps=config.steps,
        )
        trials[trial_id] = _trial_status(named, paths.trial(trial_id))
    others = sum(trial.folder.name not in trials for trial in paths.trial_folders())
    return SweepStatus(
        folder=str(paths.folder),
        study=record.study,
        command=" ".join(record.command),
        held_by=lock_holder(paths.lock),
        trials=tuple(trials.values()),
        others=others,
    )


def _levels_of(record: SweepRecord, config: TrialConfig) -> dict[str, str]:
    """The level that a trial has of each factor; none where the record, of schema 1, names no factor."""
    if config.makes_weights:
        return {}
    levels = record.levels.get(config.trial_id()) or levels_by_fields(config, record.factors)
    return {factor.name: level for factor, level in zip(record.factors, levels, strict=True)}


def _trial_status(named: TrialStatus, paths: TrialPaths) -> TrialStatus:
    """What the files of a trial add to what the record says of it."""
    try:
        result = read_result(paths.result)
        rows = read_epochs(paths.epochs)
    except NewerSchemaError:
        raise
    except DamagedFileError as error:
        return replace(named, state="damaged", error=str(error))
    # A result stands even while another process still holds the folder.
    if result is not None:
        best = None if result.val is None else _without_nan(result.val)
        named = replace(named, state=result.status, error=result.error, best_epoch=result.best_epoch, best_val=best)
    elif lock_holder(paths.lock):
        named = replace(named, state="running")
    elif rows:
        named = replace(named, state="stopped")
    if not rows:
        return named
    last = rows[-1]
    return replace(
        named,
        epoch=last.epoch,
        step=last.step,
        val=_without_nan(last.val),
        images_per_second=last.images_per_second,
        peak_memory_bytes=last.peak_memory_bytes,
        seconds=sum(row.seconds for row in rows),
        alarm=last.alarm,
    )


def _without_nan(scores: Scores) -> dict[str, float | None]:
    """The scores with None for undefined ones: JSON has no NaN."""
    return {metric: None if math.isnan(score) else score for metric, score in scores.items()}


def show_status(status: SweepStatus, console: Console | None = None) -> None:
    """Print how the sweep stands: counts, who runs it, and trials that are neither waiting nor done."""
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    total = len(status.trials)
    parts = [f"{status.count('ok', 'pruned')}/{total} done"]
    for state in _WORTH_SAYING:
        if status.count(state):
            parts.append(f"{status.count(state)} {state}")
    console.print(f"{status.folder}: {', '.join(parts)}")
    if status.held_by:
        console.print(f"in use by {status.held_by}")
    else:
        console.print(f"nobody runs it now; command: {status.command}")
    if status.others:
        console.print(f"{status.others} more trial folders of earlier commands")
    for line in _tree(status):
        console.print(line)
    for trial in status.trials:
        name = f"{trial.trial_id} {trial.varied}".rstrip()
        if trial.state in ("running", "stopped"):
            done = f"epoch {trial.epoch}/{trial.epochs}"
            if trial.steps is not None:
                done = f"step {trial.step}/{trial.steps}"
            line = f"  {trial.state} {name} {done} {_scores(trial)}"
            console.print(line.rstrip())
        elif trial.state in ("failed", "damaged"):
            error = (trial.error or "unknown").strip()
            console.print(f"  {trial.state} {name}: {error.splitlines()[-1]}")


def _tree(status: SweepStatus) -> list[str]:
    """Each trial that makes weights, and beneath it those that start from them, counted by state."""
    lines = []
    for stage in status.trials:
        if not stage.config.makes_weights:
            continue
        # A stage that starts from another stands beneath that, too: its own line says how it is.
        children = Counter(trial.state for trial in status.trials if trial.parent == stage.trial_id)
        counted = ", ".join(f"{count} {state}" for state, count in children.items())
        alarm = f", {stage.alarm}" if stage.alarm else ""
        lines.append(f"  {stage.state} {stage.trial_id} makes weights, epoch {stage.epoch}/{stage.epochs}{alarm}")
        lines.append(f"    └ for {sum(children.values())} trials: {counted}")
    return lines


def _scores(trial: TrialStatus) -> str:
    """The loss, and the score that selects where it is another; undefined ones are left out."""
    shown = []
    # A dict keeps the order and drops the second of two: the loss may be what selects.
    for metric in dict.fromkeys(("loss", trial.selection.removeprefix("val_"))):
        score = trial.val.get(metric)
        if score is not None:
            shown.append(f"{metric.replace('_', ' ')} {score:.4f}")
    return f"val {' '.join(shown)}" if shown else ""


def watch_status(paths: SweepPaths, seconds: float = 2.0) -> None:
    """Show the status again and again until nobody runs the sweep."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    while True:
        status = read_status(paths)
        if console.is_terminal:
            console.clear()
        show_status(status, console)
        if status.held_by is None:
            return
        time.sleep(seconds)
