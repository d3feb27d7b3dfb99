"""What Ray carries between driver and workers, as plain data: the trials of a group, and rows of their epochs."""

import json
from collections.abc import Sequence
from typing import Any

from raypatch.config import TrialConfig
from raypatch.results import EpochRow


def configs_of(trial: Any) -> list[TrialConfig]:
    """Return the trials that Ray runs as one, which it calls a trial."""
    return [TrialConfig.model_validate(fields) for fields in trial.config["spec"]["trials"]]


def name_of(trial: Any) -> str:
    """Return what a group is called: by its first trial."""
    return configs_of(trial)[0].trial_id()


def report_of(rows: Sequence[tuple[str, EpochRow]]) -> dict[str, str]:
    """Return the report of epochs, each with the id of its trial."""
    # As text, because Ray flattens nested results for some of its callbacks.
    told = [(trial_id, row.model_dump_json()) for trial_id, row in rows]
    return {"rows": json.dumps(told)}


def rows_of(result: dict[str, Any]) -> list[tuple[str, EpochRow]]:
    """Return the epochs of a report; none of one that says something else."""
    told = json.loads(result.get("rows", "[]"))
    return [(trial_id, EpochRow.model_validate_json(row)) for trial_id, row in told]
