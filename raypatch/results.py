"""The disk schema: every file name, every column, the only writers and readers.

Nothing is pickled: JSON, JSON lines, NPZ without objects, safetensors.
"""

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from raypatch.config import TrialConfig
from raypatch.data.catalog import Split, Task
from raypatch.files import write_atomically
from raypatch.search_settings import Search

SCHEMA_VERSION = 1

Figure = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that may be undefined: NaN in memory, null in JSON."""


class DamagedFileError(ValueError):
    """A result file is truncated, altered or of a newer schema; the message names it and the way out."""


class NewerSchemaError(DamagedFileError):
    """The file was written by a newer raypatch: whole, but not for this one to touch."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class EpochRow(_Record):
    """One line of epochs.jsonl. There is no test figure here: a search cannot see the test set.

    lr: of the epoch's last step. seconds: training and validation. images_per_second: training only.
    peak_memory_bytes: most so far, on the device; on a CPU of the process. 0 in files of earlier versions.
    """

    epoch: int
    train_loss: Figure
    val_loss: Figure
    val_accuracy: Figure
    val_balanced_accuracy: Figure
    val_auc: Figure
    lr: float
    seconds: float
    images_per_second: float
    peak_memory_bytes: int = 0


class Scores(_Record):
    """Loss (nats per image), accuracy, balanced accuracy and macro one-vs-rest AUC (all 0 to 1) of one split."""

    loss: Figure
    accuracy: Figure
    balanced_accuracy: Figure
    auc: Figure


class DatasetFacts(_Record):
    """What the analysis needs of the dataset: its kind, class names and images in train (as used), val, test."""

    task: Task
    dimensions: Literal[2, 3]
    channels: Literal[1, 3]
    classes: tuple[str, ...]
    counts: tuple[int, int, int]


class ModelFacts(_Record):
    """Parameters (count), tokens per image without the class token, and 2 x multiply-accumulates per image in 1e9."""

    parameters: int
    tokens: int
    gflops: float
    gflops_without_attention: float


class TrialResult(_Record):
    """result.json, written last: its presence means the trial is over.

    epochs: completed. best_epoch: counted from 1. train_seconds: all epochs, validation included.
    images_per_second: training, median over epochs. peak_memory_bytes: of the device, of the process on a CPU.
    precision: the one that was used. error: traceback of a failed trial.
    """

    schema_version: int = SCHEMA_VERSION
    trial_id: str
    status: Literal["ok", "pruned", "failed"]
    epochs: int = 0
    best_epoch: int | None = None
    val: Scores | None = None
    test: Scores | None = None
    dataset: DatasetFacts | None = None
    model: ModelFacts | None = None
    train_seconds: float = 0.0
    images_per_second: Figure = math.nan
    peak_memory_bytes: int = 0
    precision: str = ""
    device: str = ""
    provenance: dict[str, str] = {}
    error: str | None = None


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split.

    index: (N,) int64 into the file. label: (N,) or (N, L) int64. probability: (N, C) float32.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    probability: NDArray[np.float32]


class SweepRecord(BaseModel):
    """sweep.json: the trials of the last command in this folder, and where it came from.

    command: as typed, program name first. options, executor: fields of RunOptions and ExecutorOptions, so that
    `raypatch resume` runs as the command did; options.files says where own data and weights lay. search: of a
    search, whose trials are those drawn so far, in order; each is added before it starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    space: str
    command: tuple[str, ...]
    created: str
    provenance: dict[str, str]
    options: dict[str, Any] = {}
    executor: dict[str, Any] = {}
    search: Search | None = None
    trials: tuple[TrialConfig, ...]


@dataclass(frozen=True)
class TrialPaths:
    """Every file of one trial folder."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def epochs(self) -> Path:
        return self.folder / "epochs.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best_weights(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.npz"

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    def event_files(self) -> list[Path]:
        """TensorBoard's: one at most, named by when and where it was begun."""
        return sorted(self.folder.glob("events.out.tfevents.*"))

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"


@dataclass(frozen=True)
class SweepPaths:
    """Every file of one run folder."""

    folder: Path

    @property
    def space(self) -> Path:
        return self.folder / "space.yaml"

    @property
    def record(self) -> Path:
        return self.folder / "sweep.json"

    @property
    def trials(self) -> Path:
        return self.folder / "trials"

    @property
    def studies(self) -> Path:
        """Of a search: Optuna's view of it, for optuna-dashboard, made anew from the trial folders at every start."""
        return self.folder / "optuna.journal"

    @property
    def recipes(self) -> Path:
        """Of a search: the best fields of each group."""
        return self.folder / "best.yaml"

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def mlflow(self) -> Path:
        """MLflow's store, where no server was named."""
        return self.folder / "mlflow.db"

    @property
    def stop(self) -> Path:
        """Exists while the sweep is asked to stop."""
        return self.folder / ".stop"

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"

    @property
    def bookkeeping(self) -> Path:
        """Ray Tune's own, while a sweep runs on a cluster; nothing reads it."""
        return self.folder / ".ray"

    def trial(self, trial_id: str) -> TrialPaths:
        return TrialPaths(self.trials / trial_id)

    def trial_folders(self) -> list[TrialPaths]:
        """The trial folders that exist, sorted by name."""
        if not self.trials.is_dir():
            return []
        return [TrialPaths(entry) for entry in sorted(self.trials.iterdir()) if entry.is_dir()]


def append_epoch(path: Path, row: EpochRow) -> None:
    """Append one line to epochs.jsonl, on disk at the return: a checkpoint must never be ahead of it."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(row.model_dump_json() + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_epochs(path: Path) -> list[EpochRow]:
    """Read epochs.jsonl; a half last line, as a kill leaves it, ends the list. No file gives no rows.

    Raises DamagedFileError when a line before the last cannot be read.
    """
    if not path.exists():
        return []
    lines = path.read_text("utf-8", errors="replace").splitlines()
    rows: list[EpochRow] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(EpochRow.model_validate_json(line))
        except ValidationError as error:
            if number == len(lines):
                break
            raise DamagedFileError(
                f"{path} line {number} is damaged; remove the trial folder to run it again"
            ) from error
    return rows


def write_epochs(path: Path, rows: list[EpochRow]) -> None:
    """Replace epochs.jsonl by `rows`."""
    write_atomically(path, "".join(row.model_dump_json() + "\n" for row in rows).encode())


def write_json(path: Path, record: BaseModel) -> None:
    """Replace `path` by the record as indented JSON."""
    write_atomically(path, record.model_dump_json(indent=1).encode() + b"\n")


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} is damaged (not a JSON object); {remedy}")
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has schema version {version}, this raypatch reads up to {SCHEMA_VERSION}; install a newer raypatch"
        )
    return content


def read_result(path: Path) -> TrialResult | None:
    """Read result.json; None when the trial is not over. Raises DamagedFileError."""
    if not path.exists():
        return None
    remedy = "remove it to run the trial again"
    try:
        return TrialResult.model_validate(_read_json(path, remedy))
    except ValidationError as error:
        raise DamagedFileError(f"{path} is damaged ({error.error_count()} wrong fields); {remedy}") from error


def write_config(path: Path, config: TrialConfig) -> None:
    """Write config.json: every field, defaults too, for people; the id hangs on the canonical form alone."""
    write_json(path, config)


def read_config(path: Path) -> TrialConfig:
    """Read config.json. Raises DamagedFileError."""
    remedy = "remove the trial folder to run it again"
    try:
        return TrialConfig.model_validate(_read_json(path, remedy))
    except ValidationError as error:
        raise DamagedFileError(f"{path} is damaged ({error.error_count()} wrong fields); {remedy}") from error


def read_sweep(path: Path) -> SweepRecord:
    """Read sweep.json. Raises DamagedFileError, also when the file is missing."""
    remedy = "give a folder that `raypatch run` made"
    try:
        return SweepRecord.model_validate(_read_json(path, remedy))
    except ValidationError as error:
        raise DamagedFileError(f"{path} is damaged ({error.error_count()} wrong fields); {remedy}") from error


def write_predictions(path: Path, splits: Mapping[Split, Predictions]) -> None:
    """Write predictions.npz: `<split>_index`, `<split>_label`, `<split>_probability` per split."""
    arrays: dict[str, Any] = {}
    for split, predictions in splits.items():
        arrays[f"{split}_index"] = predictions.index
        arrays[f"{split}_label"] = predictions.label
        arrays[f"{split}_probability"] = predictions.probability
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getbuffer())


def read_predictions(path: Path, split: Split) -> Predictions:
    """Read one split of predictions.npz. Raises DamagedFileError when it is missing, truncated or inconsistent."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = Predictions(stored[f"{split}_index"], stored[f"{split}_label"], stored[f"{split}_probability"])
    except Exception as error:  # numpy and zipfile raise many kinds for a broken archive; all mean the same here
        raise DamagedFileError(f"{path} cannot be read ({error}); remove the trial folder to run it again") from error
    count = len(found.index)
    if len(found.label) != count or len(found.probability) != count or found.probability.ndim != 2:
        raise DamagedFileError(f"{path} holds arrays of different length for {split}; remove the trial folder")
    return found
