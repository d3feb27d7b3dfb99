"""Which images a trial sees, and how they are brought to the network's size."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from raypatch.data.catalog import canonical_name
from raypatch.fields import FieldFacts
from raypatch.storage.own_files import OWN_FILE, OWN_SET, own_file_stem
from raypatch.trial_fields.resolution import source_name

Resize = Literal["bilinear", "nearest", "bicubic", "pad", "pad_mean"]
"""How images are brought to another size; all but nearest and the pads are low-pass filtered where they shrink."""


class DataFields(BaseModel):
    """Fields of the data."""

    dataset: Annotated[str, FieldFacts("block", "dataset")] = Field(
        description="Canonical dataset name, or file:STEM@DIGEST for an own .npz file."
    )
    resolution: Annotated[
        int | None,
        FieldFacts("factor", "resolution", "resolution {}", "rising", "px"),
    ] = Field(
        None,
        ge=4,
        le=1024,
        description="Edge of the images in the file that is read, where a dataset comes in several sizes.",
    )
    image_size: Annotated[int, FieldFacts("factor", "image size", "{} px", "rising", "px")] = Field(
        28, ge=4, le=1024, description="Edge of the image or volume the model sees, pixels."
    )
    resize: Annotated[
        Resize,
        FieldFacts("factor", "resizing"),
    ] = Field(
        "bilinear",
        description="How a file of another size is brought to image_size; pad centres it on zeros, which are black,"
        " pad_mean on the mean colour of the weights' normalisation.",
    )
    train_fraction: Annotated[
        float,
        FieldFacts(
            "factor",
            "share of the training images",
            "{} of the training images",
            "rising",
            percent=True,
        ),
    ] = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the training images used, drawn per class with the seed.",
    )

    @field_validator("dataset")
    @classmethod
    def _canonical_dataset(cls, value: str) -> str:
        is_own = OWN_FILE.fullmatch(value) or OWN_SET.fullmatch(value)
        return value if is_own else canonical_name(value)

    @model_validator(mode="after")
    def _is_there_in_this_resolution(self) -> Self:
        # It raises where there is no such file.
        source_name(self.dataset, self.resolution)
        return self

    @property
    def source(self) -> str:
        """The name that the trial's images are read by: of the dataset's file at this resolution."""
        return source_name(self.dataset, self.resolution)

    @property
    def dataset_label(self) -> str:
        """The dataset's name for people: without the digest of an own file."""
        return own_file_stem(self.dataset) or self.dataset
