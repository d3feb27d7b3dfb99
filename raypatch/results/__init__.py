"""What a run folder holds: its files' names (paths), their content (records),
their writers and readers (store).
"""

from raypatch.results.paths import ExplanationPaths, SweepPaths, TrialPaths
from raypatch.results.records import (
    SCHEMA_VERSION,
    DamagedFileError,
    DatasetFacts,
    EpochRow,
    Expectation,
    ModelFacts,
    NewerSchemaError,
    Predictions,
    Scores,
    SweepRecord,
    TrialResult,
)
from raypatch.results.store import (
    append_epoch,
    read_config,
    read_epochs,
    read_predictions,
    read_result,
    read_sweep,
    write_config,
    write_epochs,
    write_json,
    write_predictions,
)

__all__ = [
    "SCHEMA_VERSION",
    "DamagedFileError",
    "DatasetFacts",
    "EpochRow",
    "Expectation",
    "ExplanationPaths",
    "ModelFacts",
    "NewerSchemaError",
    "Predictions",
    "Scores",
    "SweepPaths",
    "SweepRecord",
    "TrialPaths",
    "TrialResult",
    "append_epoch",
    "read_config",
    "read_epochs",
    "read_predictions",
    "read_result",
    "read_sweep",
    "write_config",
    "write_epochs",
    "write_json",
    "write_predictions",
]
