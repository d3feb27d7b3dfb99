"""What decides a trial's result (TrialConfig, and with it the trial's identity)
and what does not (RunOptions).
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from raypatch.fields import FieldFacts, Role
from raypatch.trial_fields.data import DataFields
from raypatch.trial_fields.loss import LossFields
from raypatch.trial_fields.method import MethodFields
from raypatch.trial_fields.model import ModelFields
from raypatch.trial_fields.objective import PRETRAINING, ObjectiveFields
from raypatch.trial_fields.optimisation import OptimisationFields


class TrialConfig(ObjectiveFields, LossFields, OptimisationFields, MethodFields, ModelFields, DataFields):
    """Everything that decides the result of one training. Frozen; unknown keys are refused.

    Defaults are part of the schema: a field that is left at its default does not enter the trial's
    id, so a later version may add fields without renaming old trials, but must never change a
    default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    augmentation: Annotated[
        Literal["paper", "elastic", "none"],
        FieldFacts("factor", "augmentation", "{} augmentation"),
    ] = Field(
        "paper",
        description="paper: crop, flip, rotation and colour in 2D, cube symmetries in 3D; elastic: the same, and bent,"
        " in 2D; or none.",
    )
    precision: Annotated[
        Literal["auto", "bfloat16", "float32"],
        FieldFacts("factor", "precision"),
    ] = Field("auto", description="auto: bfloat16 autocast where the hardware has it, float32 elsewhere.")
    selection: Annotated[str, FieldFacts("hyperparameter", "selection", "selection by {}")] = Field(
        "val_loss",
        pattern=r"^val_[a-z0-9_]+$",
        description="Validation score whose best epoch gives the kept weights: val_loss, or val_ and a metric.",
    )
    seed: Annotated[int, FieldFacts("repeat", "seed", "seed {}", "rising")] = Field(
        0, ge=0, lt=2**31, description="Seed of initialisation, order, augmentation and subset."
    )
    fold: Annotated[int | None, FieldFacts("factor", "fold", "fold {}", "rising")] = Field(
        None,
        ge=0,
        description="Of own data packed with --folds, the one that is the test; the one after it is val.",
    )
    task: Annotated[str | None, FieldFacts("factor", "task")] = Field(
        None,
        description="What is learned: by default what the dataset's labels say; segmentation, of its masks; or"
        " module:NAME of an own task.",
    )

    @model_validator(mode="after")
    def _fields_fit_each_other(self) -> Self:
        if self.patch_size is not None and self.image_size % self.patch_size:
            edges = range(1, self.image_size + 1)
            divisors = ", ".join(str(edge) for edge in edges if self.image_size % edge == 0)
            raise ValueError(
                f"patch_size={self.patch_size} must divide image_size={self.image_size}; use one of {divisors}"
            )
        return self

    @property
    def makes_weights(self) -> bool:
        """Whether the trial makes weights for others to start from, and predicts nothing."""
        return self.method == PRETRAINING

    @property
    def selection_metric(self) -> str:
        """The score that `selection` names, without its split: loss, auc."""
        return self.selection.removeprefix("val_")

    def canonical_json(self) -> str:
        """The fields that differ from their defaults, sorted, as JSON:
        what the trial's identity hangs on.
        """
        # Trial ids hash this text: neither the order of the keys nor a space may ever change.
        changed = self.model_dump(exclude_defaults=True)
        return json.dumps(changed, sort_keys=True, separators=(",", ":"))

    def trial_id(self) -> str:
        """A readable name and a hash of the canonical JSON, the same on every machine:
        `dermamnist-p4-s0-1a2b3c4d`.
        """
        digest = hashlib.sha256(self.canonical_json().encode()).hexdigest()[:8]
        parts = [self.dataset_label]
        if self.patch_size is not None:
            parts.append(f"p{self.patch_size}")
        return "-".join([*parts, f"s{self.seed}", digest])


class RunOptions(BaseModel):
    """Where and how a trial runs; nothing here changes what is computed, up to rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    data_dir: Path | None = Field(
        None,
        description="Folder of the .npz files; default $MEDMNIST_ROOT or ~/.medmnist.",
    )
    files: dict[str, Path] = Field(
        default_factory=dict,
        description="Where the own files that configs name by content (file:STEM@DIGEST) lie.",
    )
    micro_batch: int | Literal["auto"] = Field(
        "auto",
        description="Images per forward pass; the optimizer step still sees batch_size images.",
    )
    keep_masks: bool = Field(
        False,
        description="Of a segmentation also keep the probabilities of all pixels, which ensembles need: a byte each.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of one trial; default all cores.",
    )
    stack: int | Literal["auto", "off"] = Field(
        "auto",
        description="Trials that differ in the seed alone and fine-tune as one model of stacked weights, at most:"
        " a number, off, or auto, where `raypatch plan` has measured that it is faster.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Let torch compile the training pass, for which it takes up to a minute and a C++ compiler:"
        " on, off, or auto, long trainings in bfloat16 on a CPU.",
    )
    card_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of a GPU's memory that a trial may plan with; of a sweep its placement says it.",
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # Absolute: `raypatch resume` may be called from another folder.
        return value.expanduser().absolute() if value else None

    @field_validator("micro_batch")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"micro_batch={value} must be auto or at least 1")
        return value

    @field_validator("stack")
    @classmethod
    def _several(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 2:
            raise ValueError(f"stack={value} must be auto, off or at least 2")
        return value


def field_facts(name: str) -> FieldFacts:
    """Return what the field `name` of TrialConfig is and how it is worded."""
    # pydantic keeps what stands in Annotated[...] and is no rule of its own as metadata.
    for facts in TrialConfig.model_fields[name].metadata:
        if isinstance(facts, FieldFacts):
            return facts
    raise AssertionError(f"{name} has no FieldFacts: add them in config.py")


def fields_of_role(role: Role) -> frozenset[str]:
    """Return the names of the fields that have `role`."""
    return frozenset(name for name in TrialConfig.model_fields if field_facts(name).role == role)


def make_config(values: Mapping[str, Any]) -> TrialConfig:
    """Return the TrialConfig of `values`.

    Raises ValueError in one line, with near names for a wrong field.
    """
    try:
        return TrialConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain_validation(error, TrialConfig)) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the names of `known` that are near `name`, else all of them, as the end of a message."""
    every = list(known)
    near = difflib.get_close_matches(name, every, n=3)
    return f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(every)}"


def explain_validation(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for a ValidationError of `model`: field, rule, value of each problem;
    near names for a wrong field.
    """
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(map(str, problem["loc"]))
        # pydantic puts these words before the message of a validator's ValueError.
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown field; {did_you_mean(field, model.model_fields)}"
        # Those two say the value themselves, or there is none.
        elif problem["type"] not in ("value_error", "missing"):
            message = f"{message}, not {problem['input']!r}"
        # A rule about several fields has no place: its message names them.
        lines.append(f"{field}: {message}" if field else message)
    return "; ".join(lines)
