"""How a sweep stands, read from its files alone: works from any terminal, while it runs, after it died."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console

from raypatch.config import TrialConfig
from raypatch.files import lock_holder
from raypatch.results import (
    DamagedFileError,
    EpochRow,
    NewerSchemaError,
    SweepPaths,
    TrialPaths,
    TrialResult,
    read_epochs,
    read_result,
    read_sweep,
)

State = Literal["ok", "pruned", "failed", "running", "stopped", "waiting", "damaged"]
_WORTH_SAYING: tuple[State, ...] = ("failed", "damaged", "running", "stopped", "waiting")


@dataclass(frozen=True)
class TrialStatus:
    """One planned trial. stopped: begun, and nobody works on it now. epoch: completed. seconds: spent so far."""

    trial_id: str
    state: State
    epoch: int
    epochs: int
    val_loss: float | None
    val_auc: float | None
    images_per_second: float | None
    peak_memory_bytes: int | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class SweepStatus:
    """The trials of the last command, who runs the sweep now, and how many more folders earlier commands left."""

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
        counts = {state: self.count(state) for state in State.__args__}  # type: ignore[attr-defined]
        return json.dumps({"counts": counts, **asdict(self)}, indent=1)


def read_status(paths: SweepPaths) -> SweepStatus:
    """Read how the sweep stands. Raises DamagedFileError where there is no readable sweep.json."""
    record = read_sweep(paths.record)
    planned = {config.trial_id(): config for config in record.trials}
    others = sum(trial.folder.name not in planned for trial in paths.trial_folders())
    return SweepStatus(
        folder=str(paths.folder),
        study=record.study,
        command=" ".join(record.command),
        held_by=lock_holder(paths.lock),
        trials=tuple(_trial_status(config, paths.trial(trial_id)) for trial_id, config in planned.items()),
        others=others,
    )


def _trial_status(config: TrialConfig, paths: TrialPaths) -> TrialStatus:
    try:
        result = read_result(paths.result)
        rows = read_epochs(paths.epochs)
    except NewerSchemaError:
        raise
    except DamagedFileError as error:
        return TrialStatus(config.trial_id(), "damaged", 0, config.epochs, None, None, None, None, 0.0, str(error))
    last = rows[-1] if rows else None
    state: State
    if result is not None:
        state = result.status
    elif lock_holder(paths.lock):
        state = "running"
    else:
        state = "stopped" if rows else "waiting"
    return _status_of(config, state, last, rows, result)


def _status_of(
    config: TrialConfig, state: State, last: EpochRow | None, rows: list[EpochRow], result: TrialResult | None
) -> TrialStatus:
    def finite(value: float) -> float | None:
        return value if value == value else None

    return TrialStatus(
        trial_id=config.trial_id(),
        state=state,
        epoch=last.epoch if last else 0,
        epochs=config.epochs,
        val_loss=finite(last.val["loss"]) if last else None,
        val_auc=finite(last.val["auc"]) if last else None,
        images_per_second=last.images_per_second if last else None,
        peak_memory_bytes=last.peak_memory_bytes if last else None,
        seconds=sum(row.seconds for row in rows),
        error=result.error if result else None,
    )


def show_status(status: SweepStatus, console: Console | None = None) -> None:
    """Print how the sweep stands: counts, who runs it, then the trials that are neither waiting nor done."""
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    total = len(status.trials)
    parts = [f"{status.count('ok', 'pruned')}/{total} done"]
    parts += [f"{status.count(state)} {state}" for state in _WORTH_SAYING if status.count(state)]
    console.print(f"{status.folder}: {', '.join(parts)}")
    console.print(f"in use by {status.held_by}" if status.held_by else f"nobody runs it now; command: {status.command}")
    if status.others:
        console.print(f"{status.others} more trial folders of earlier commands")
    for trial in status.trials:
        if trial.state in ("running", "stopped"):
            loss = f"val loss {trial.val_loss:.4f}" if trial.val_loss is not None else ""
            console.print(f"  {trial.state} {trial.trial_id} epoch {trial.epoch}/{trial.epochs} {loss}".rstrip())
        elif trial.state in ("failed", "damaged"):
            console.print(f"  {trial.state} {trial.trial_id}: {(trial.error or 'unknown').strip().splitlines()[-1]}")


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
