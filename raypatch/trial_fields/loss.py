"""What a training minimises, and which images it sees how often: for classes that are not alike in number."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from raypatch.fields import MASK_LOSS_WORDS, FieldFacts


class LossFields(BaseModel):
    """Fields of the training loss. Validation and test always have the task's own, unweighted loss."""

    class_weights: Annotated[
        Literal["none", "balanced"],
        FieldFacts("hyperparameter", "class weights", "{} class weights"),
    ] = Field(
        "none",
        description="balanced: an image weighs (images / classes) / images of its class, by the training images.",
    )
    sampling: Annotated[
        Literal["shuffled", "balanced"],
        FieldFacts("hyperparameter", "sampling", "{} sampling"),
    ] = Field(
        "shuffled",
        description="shuffled: each image once an epoch. balanced: drawn with replacement, each class equally likely.",
    )
    focal_gamma: Annotated[
        float,
        FieldFacts("hyperparameter", "focal loss", "focal loss with gamma {}", "rising"),
    ] = Field(0.0, ge=0, description="Exponent of the focal loss, (1 - p)^gamma times the cross-entropy; 0 for none.")
    mask_loss: Annotated[
        Literal["bce", "dice", "both"],
        FieldFacts("hyperparameter", "loss of masks", words=MASK_LOSS_WORDS),
    ] = Field(
        "bce",
        description="Segmentation only: bce, cross-entropy of the pixels; dice, 1 - soft Dice, which heeds small"
        " objects; both, their sum.",
    )
    label_smoothing: Annotated[
        float,
        FieldFacts("hyperparameter", "label smoothing", "label smoothing {}", "rising"),
    ] = Field(0.0, ge=0, lt=1, description="Share of each label's certainty that is spread evenly over all classes.")
