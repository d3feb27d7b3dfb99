"""How a sweep stands, read from its files alone: works from any terminal, while it runs, after it died."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

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
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class SweepStatus:
    """The trials of the last command, who runs the sweep now, and how many more folders earlier commands left."""

    folder: str
    space: str
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
        space=record.space,
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
        return TrialStatus(config.trial_id(), "damaged", 0, config.epochs, None, None, None, 0.0, str(error))
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
        val_loss=finite(last.val_loss) if last else None,
        val_auc=finite(last.val_auc) if last else None,
        images_per_second=last.images_per_second if last else None,
        seconds=sum(row.seconds for row in rows),
        error=result.error if result else None,
    )
