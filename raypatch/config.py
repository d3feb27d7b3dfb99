"""What decides a trial's result (TrialConfig, and with it the trial's identity) and what does not (RunOptions)."""

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from raypatch.data.catalog import canonical_name

OWN_FILE = re.compile(r"file:(?P<stem>[A-Za-z0-9_.-]{1,64})@(?P<digest>[0-9a-f]{12})")
"""How a user's own dataset or weights stand in a config: by content, so that moving the file changes nothing."""


class TrialConfig(BaseModel):
    """Everything that decides the result of one training. Frozen; unknown keys are refused.

    Defaults are part of the schema: a field that is left at its default does not enter the trial's id, so a later
    version may add fields without renaming old trials, but must never change a default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = Field(description="Canonical dataset name, or file:STEM@DIGEST for an own .npz file.")
    image_size: int = Field(28, ge=4, le=1024, description="Edge of the image or volume the model sees, pixels.")
    resize: Literal["bilinear", "nearest", "pad"] = Field(
        "bilinear", description="How a file of another size is brought to image_size; pad centres it on zeros."
    )
    train_fraction: float = Field(
        1.0, gt=0, le=1, description="Share of the training images used, drawn per class with the seed."
    )
    model: str = Field("vit_small_patch16_224", description="Name of a timm VisionTransformer, tag allowed.")
    weights: str = Field(
        "timm", description="timm (its hub), random, or file:STEM@DIGEST for a local .safetensors or .pth file."
    )
    patch_size: int = Field(description="Edge of a patch in pixels; must divide image_size.", ge=1)
    inflation: Literal["repeat", "centre"] = Field(
        "repeat", description="3D only: a pretrained kernel repeated along depth / p, or on the central slice alone."
    )
    method: Literal["finetune", "linear_probe"] = Field(
        "finetune", description="Train all weights, or only the classification head on frozen features."
    )
    epochs: int = Field(100, ge=1, description="Passes over the training images.")
    batch_size: int = Field(8, ge=1, description="Images per optimizer step.")
    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="Update rule; sgd has momentum 0.9.")
    lr: float = Field(1e-4, gt=0, description="Learning rate of the first epoch after warm-up.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay (decoupled in adamw).")
    schedule: Literal["step", "cosine", "constant"] = Field(
        "step", description="Learning rate over the epochs: step multiplies by step_gamma every step_epochs."
    )
    step_epochs: int = Field(30, ge=1, description="Epochs between two steps of the step schedule.")
    step_gamma: float = Field(0.5, gt=0, le=1, description="Factor of each step of the step schedule.")
    warmup_epochs: int = Field(0, ge=0, description="Epochs over which the learning rate rises linearly to lr.")
    augmentation: Literal["paper", "none"] = Field(
        "paper", description="paper: crop, flip, rotation and colour in 2D, cube symmetries in 3D; or none."
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto: bfloat16 autocast where the hardware has it, float32 elsewhere."
    )
    selection: Literal["val_loss", "val_accuracy", "val_balanced_accuracy", "val_auc"] = Field(
        "val_loss", description="Validation figure whose best epoch gives the kept weights."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initialisation, order, augmentation and subset.")

    @field_validator("dataset")
    @classmethod
    def _canonical_dataset(cls, value: str) -> str:
        return value if OWN_FILE.fullmatch(value) else canonical_name(value)

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        if value not in ("timm", "random") and not OWN_FILE.fullmatch(value):
            raise ValueError(f"weights={value!r} must be timm, random or the path of a .safetensors or .pth file")
        return value

    @model_validator(mode="after")
    def _patch_divides_image(self) -> Self:
        if self.image_size % self.patch_size:
            divisors = [p for p in range(1, self.image_size + 1) if self.image_size % p == 0]
            raise ValueError(
                f"patch_size={self.patch_size} must divide image_size={self.image_size};"
                f" use one of {', '.join(map(str, divisors))}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} must be below epochs={self.epochs}")
        return self

    @property
    def dataset_label(self) -> str:
        """The dataset's name for people: without the digest of an own file."""
        own = OWN_FILE.fullmatch(self.dataset)
        return own["stem"] if own else self.dataset

    @property
    def lower_is_better(self) -> bool:
        """Whether the selection figure is a loss."""
        return self.selection == "val_loss"

    def canonical_json(self) -> str:
        """The fields that differ from their defaults, sorted, as JSON: what the trial's identity hangs on."""
        return json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True, separators=(",", ":"))

    def trial_id(self) -> str:
        """A readable name and a hash of the canonical JSON, the same on every machine: `dermamnist-p4-s0-1a2b3c4d`."""
        digest = hashlib.sha256(self.canonical_json().encode()).hexdigest()[:8]
        return f"{self.dataset_label}-p{self.patch_size}-s{self.seed}-{digest}"


class RunOptions(BaseModel):
    """Where and how a trial runs; nothing here changes what is computed, up to rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    data_dir: Path | None = Field(None, description="Folder of the .npz files; default $MEDMNIST_ROOT or ~/.medmnist.")
    files: dict[str, Path] = Field(
        default_factory=dict, description="Where the own files that configs name by content (file:STEM@DIGEST) lie."
    )
    micro_batch: int | Literal["auto"] = Field(
        "auto", description="Images per forward pass; the optimizer step still sees batch_size images."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of one trial; default all cores.")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None  # `resume` may be called from another folder

    @field_validator("micro_batch")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"micro_batch={value} must be auto or at least 1")
        return value


def own_file_id(path: Path) -> str:
    """Return file:STEM@DIGEST of an own file, its digest the first 12 hex digits of SHA-256 over the content.

    Raises ValueError when the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64] or "file"
    return f"file:{stem}@{digest}"


def locate_own_file(identity: str, files: Mapping[str, Path], *, option: str) -> Path:
    """Return where the own file named file:STEM@DIGEST lies by `files`; its content is read once per process and state.

    option: what the user gives it by, for the messages, such as `--weights`. Raises ValueError when it is not in
    `files`, absent or changed.
    """
    path = files.get(identity)
    if path is None:
        raise ValueError(f"it is not known where {identity} lies; give the file's path: {option} FILE")
    try:
        state = path.stat()
    except OSError as error:
        raise ValueError(
            f"cannot read {path}, which was {identity}: {error.strerror};"
            f" bring it back or give its new path: {option} FILE"
        ) from error
    found = _own_file_id(path, state.st_size, state.st_mtime_ns)
    if found.rpartition("@")[2] != identity.rpartition("@")[2]:
        raise ValueError(
            f"{path} has changed since it was named {identity}: it is now {found}."
            " Bring the old file back, or start a new run with the changed one"
        )
    return path


@functools.cache
def _own_file_id(path: Path, _size: int, _mtime_ns: int) -> str:
    return own_file_id(path)


def make_config(values: Mapping[str, Any]) -> TrialConfig:
    """Return the TrialConfig of `values`. Raises ValueError in one line, with near names for a wrong field."""
    try:
        return TrialConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain_validation(error, TrialConfig)) from error


def explain_validation(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for a ValidationError of `model`: field, rule, value of each problem; near names for a wrong field."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place, model.model_fields, n=3)
            message = f"unknown field; did you mean {', '.join(near)}?" if near else "unknown field"
        elif problem["type"] not in ("value_error", "missing"):
            message = f"{message}, not {problem['input']!r}"
        lines.append(f"{place}: {message}" if place else message)
    return "; ".join(lines)
