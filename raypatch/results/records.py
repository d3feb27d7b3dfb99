"""The disk schema: what each file of a run folder holds.

Nothing is pickled: JSON, JSON lines, NPZ, safetensors.

Schema 2 keeps scores as a map and stores what the study compares; schema 1, of patch-size studies
alone, is read too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from raypatch.config import TrialConfig
from raypatch.factors import Factor
from raypatch.search_settings import Search

SCHEMA_VERSION = 2

# JSON has no NaN.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that may be undefined: NaN in memory, null in JSON."""

Scores = Mapping[str, float]
"""Scores of one split by metric, `loss` (nats per image) among them; undefined ones are NaN."""

StoredScores = dict[str, Number]


class DamagedFileError(ValueError):
    """A result file is truncated, altered or of a newer schema;
    the message names it and the way out.
    """


class NewerSchemaError(DamagedFileError):
    """The file was written by a newer raypatch: whole, but not for this one to touch."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class EpochRow(_Record):
    """One line of epochs.jsonl. There is no test score here: a search cannot see the test set.

    val: scores on validation. lr: of the epoch's last step, the encoder's where that trains. seconds:
    training and validation since the row before. images_per_second: training only. step: optimizer
    steps taken so far, 0 in files of earlier versions. peak_memory_bytes: most so far, on the device; on a CPU of the
    process. 0 in files of earlier versions. alarm: what is wrong with the validation predictions, such
    as that they are of one class only; None where nothing is. watched: what a pretraining watches, by name.
    """

    epoch: int
    train_loss: Number
    val: StoredScores
    lr: float
    seconds: float
    images_per_second: float
    peak_memory_bytes: int = 0
    step: int = 0
    alarm: str | None = None
    watched: StoredScores = {}

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, values: Any) -> Any:
        """Schema 1 had a column per validation score."""
        if not isinstance(values, dict) or "val" in values:
            return values
        scores = {}
        rest = {}
        for name, value in values.items():
            if name.startswith("val_"):
                scores[name.removeprefix("val_")] = value
            else:
                rest[name] = value
        return rest | {"val": scores}

    def flat(self) -> dict[str, float]:
        """All numbers under one name each, scores as val_loss, val_auc:
        for charts, trackers and data frames.
        """
        # A chart has one flat list of names; val_ keeps a score apart from a field of the row.
        numbers = self.model_dump(exclude={"val", "alarm", "watched"})
        return numbers | self.watched | {f"val_{name}": score for name, score in self.val.items()}


class DatasetFacts(_Record):
    """What the analysis needs of the dataset: its kind,
    class names and images in train (as used), val, test.

    balance: the images of each class (or with each label) in these three splits. patients: how many
    these are of, None where the data does not say. Both empty in files of earlier versions.
    rule: JSON of the InputRule by which own images were packed, which new ones are read by; None
    where the data does not say.
    """

    task: str
    dimensions: Literal[2, 3]
    channels: Literal[1, 3]
    classes: tuple[str, ...]
    counts: tuple[int, int, int]
    balance: tuple[tuple[int, ...], ...] = ()
    patients: tuple[int | None, ...] = ()
    rule: str | None = None


class ModelFacts(_Record):
    """Parameters (count) and 2 x multiply-accumulates per image in 1e9.

    tokens: per image without the class token; None for a model without tokens.
    """

    parameters: int
    tokens: int | None = None
    gflops: float
    gflops_without_attention: float


class TrialResult(_Record):
    """result.json, written last: its presence means the trial is over.

    epochs: completed. best_epoch: counted from 1. train_seconds: all epochs, validation included.
    images_per_second: training, median over epochs.
    peak_memory_bytes: of the device, of the process on a CPU.
    precision: the one that was used. error: traceback of a failed trial.
    alarm: what was wrong with a pretraining at its end, such as that it collapsed; None where nothing was.
    """

    schema_version: int = SCHEMA_VERSION
    trial_id: str
    status: Literal["ok", "pruned", "failed"]
    epochs: int = 0
    best_epoch: int | None = None
    val: StoredScores | None = None
    test: StoredScores | None = None
    dataset: DatasetFacts | None = None
    model: ModelFacts | None = None
    train_seconds: float = 0.0
    images_per_second: Number = math.nan
    peak_memory_bytes: int = 0
    precision: str = ""
    device: str = ""
    # pydantic copies a default for each instance, so this dict is not shared.
    provenance: dict[str, str] = {}
    error: str | None = None
    alarm: str | None = None


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split.

    index: (N,) int64 into the file. label: (N,) or (N, L) int64. probability: (N, C) float32. Of a
    segmentation, with C classes besides the background: label (N, C), pixels of the truth;
    probability (N, C, 2), pixels that prediction and truth share, and those of the prediction.
    group: (N,), who is on each image: the name of the patient as text (a number in files of earlier
    versions). id: (N,), what each image is called, text. Both only where the data says so.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    probability: NDArray[np.float32]
    group: NDArray[np.generic] | None = None
    id: NDArray[np.str_] | None = None

    @property
    def of_masks(self) -> bool:
        """Whether these are counts of pixels."""
        return self.probability.ndim == 3

    def take(self, images: NDArray[np.int64] | NDArray[np.bool_]) -> "Predictions":
        """Return the predictions of some images, by places in order or as a mask."""
        group = None if self.group is None else self.group[images]
        names = None if self.id is None else self.id[images]
        return Predictions(self.index[images], self.label[images], self.probability[images], group, names)


class Expectation(_Record):
    """What a publication states, shown beside the datasets that it is about.

    says: the statement. source: where it stands. datasets: canonical names, on which it was found;
    none where a table says it. table: scores cell by cell, as the text of a CSV with a column
    `dataset`, columns named as factors or fields, and columns of metrics.
    """

    says: str
    source: str
    datasets: tuple[str, ...] = ()
    table: str = ""

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if not self.datasets and not self.table:
            raise ValueError(f"expect: {self.says!r} is about nothing; give datasets or a table")
        return self


class SweepRecord(BaseModel):
    """sweep.json: the trials of the last command in this folder, and where it came from.

    study: its name. command: as typed, program name first. options, executor: fields of RunOptions
    and ExecutorOptions, so that `raypatch resume` runs as the command did; options.files says where
    own data and weights lay. search: of a search, whose trials are those drawn so far, in order;
    each is added before it starts.
    factors: what is compared, in the order of the study. levels: by
    trial id its level of each factor.
    metric: the score that the answer is about, None for the task's
    own. repeats: what tables show of a score's repeats. expect: what publications state.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    study: str
    command: tuple[str, ...]
    created: str
    provenance: dict[str, str]
    options: dict[str, Any] = {}
    executor: dict[str, Any] = {}
    search: Search | None = None
    # Schema 1 had none of the following: each has a default.
    factors: tuple[Factor, ...] = ()
    levels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    metric: str | None = None
    repeats: Literal["mean", "median"] = "mean"
    expect: tuple[Expectation, ...] = ()
    trials: tuple[TrialConfig, ...]

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, values: Any) -> Any:
        """Schema 1 named the study `space`; its question, the patch size, is found from the trials."""
        if isinstance(values, dict) and "space" in values:
            # A copy: what was given must not change.
            values = dict(values)
            values["study"] = values.pop("space")
        return values
