"""The command line's options, once each, in groups that commands share, and how their text is read."""

from raypatch.cli.options.commands import StudyCommand, with_groups
from raypatch.cli.options.complete import (
    complete_datasets,
    complete_fields,
    complete_settings,
    complete_studies,
)
from raypatch.cli.options.groups import (
    Changes,
    Compare,
    DataDir,
    Execution,
    Json,
    MicroBatch,
    Narrowing,
    Place,
    RetryFailed,
    RunFolder,
    RunsDir,
    Sensitivity,
    Session,
    Space,
    TimeLimit,
)
from raypatch.cli.options.texts import metric_of, micro_batch_of, read_seeds, seconds_of, split_commas

__all__ = [
    "Changes",
    "Compare",
    "DataDir",
    "Execution",
    "Json",
    "MicroBatch",
    "Narrowing",
    "Place",
    "RetryFailed",
    "RunFolder",
    "RunsDir",
    "Sensitivity",
    "Session",
    "Space",
    "StudyCommand",
    "TimeLimit",
    "complete_datasets",
    "complete_fields",
    "complete_settings",
    "complete_studies",
    "metric_of",
    "micro_batch_of",
    "read_seeds",
    "seconds_of",
    "split_commas",
    "with_groups",
]
