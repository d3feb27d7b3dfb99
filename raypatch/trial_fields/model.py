"""Which network a trial trains, and what it starts from."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from raypatch.fields import FieldFacts
from raypatch.storage.own_files import OWN_FILE
from raypatch.trial_fields.stage import STAGE_WEIGHTS, parent_of


class ModelFields(BaseModel):
    """Fields of the model."""

    model: Annotated[str, FieldFacts("factor", "model")] = Field(
        "vit_small_patch16_224",
        description="Name of a timm model, tag allowed, torchvision/NAME, or module:NAME of an own family.",
    )
    weights: Annotated[str, FieldFacts("factor", "initial weights", "{} weights")] = Field(
        "timm",
        description="timm (those that come with the model), random, file:STEM@DIGEST for an own file, or of a"
        " stage of the study.",
    )
    patch_size: Annotated[
        int | None,
        FieldFacts("factor", "patch size", "patch size {}", "falling", "px"),
    ] = Field(
        None,
        ge=1,
        description="Edge of a patch in pixels; must divide image_size. A plain Vision Transformer needs it.",
    )
    output_stride: Annotated[
        Literal[8, 16] | None,
        FieldFacts("factor", "output stride", "output stride {}", "falling", "px"),
    ] = Field(
        None,
        description="CNNs of timm: pixels of an edge that become one place of the last map, in place of the model's"
        " own, mostly 32. Later layers are dilated for it, and keep their weights; for a segmentation.",
    )
    inflation: Annotated[
        Literal["repeat", "centre"],
        FieldFacts("factor", "inflation", "inflation by {}"),
    ] = Field(
        "repeat",
        description="3D only: a pretrained kernel repeated along depth / p, or on the central slice alone.",
    )

    @property
    def parent(self) -> str | None:
        """The id of the trial whose weights this one starts from; None where they are there from the start."""
        return parent_of(self.weights)

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        if value.startswith("stage:") and not STAGE_WEIGHTS.fullmatch(value):
            raise ValueError(f"weights={value!r} names a stage, which only a study has: list it under `stages:` there")
        is_there = OWN_FILE.fullmatch(value) or STAGE_WEIGHTS.fullmatch(value)
        if value not in ("timm", "random") and not is_there:
            raise ValueError(
                f"weights={value!r} must be timm, random or the path of a .safetensors or .pth file",
            )
        return value
