"""Fields of a training without labels, which makes weights that other trials start from."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from raypatch.fields import FieldFacts

PRETRAINING = "pretrain"
"""The method that trains without labels."""

PRETRAINING_FIELDS = (
    "objective",
    "local_views",
    "student_temperature",
    "teacher_temperature",
    "first_temperature",
    "temperature_epochs",
    "teacher_momentum",
    "centre_momentum",
    "projection_width",
    "prototypes",
    "last_weight_decay",
    "drop_path",
)
"""Fields that only pretraining reads."""

BOTTLENECK = 256
"""Width at which the projection is normalised."""

USUAL_STRIDE = 32
"""Pixels per place of the last map of most CNNs."""

OF_LABELS = (
    "head",
    "head_lr",
    "encoder_lr",
    "head_schedule",
    "patience",
    "class_weights",
    "sampling",
    "focal_gamma",
    "label_smoothing",
    "augmentation",
    "selection",
)
"""Fields of a training by labels, which pretraining does not read: it has views in place of an augmentation."""


class ObjectiveFields(BaseModel):
    """Fields of pretraining. The defaults are DINO's as released with arXiv 2303.07034, its 8 local views aside."""

    objective: Annotated[str, FieldFacts("factor", "objective")] = Field(
        "dino", description="pretrain only: what is learned without labels: dino, or module:NAME."
    )
    local_views: Annotated[int, FieldFacts("hyperparameter", "local views", "{} local views", "rising")] = Field(
        8, ge=0, description="pretrain only: small crops of each image that the student sees beside the two large ones."
    )
    student_temperature: Annotated[
        float, FieldFacts("hyperparameter", "temperature of the student", "student temperature {}", "rising")
    ] = Field(0.1, gt=0, description="pretrain only: divides the student's outputs; the smaller, the sharper.")
    teacher_temperature: Annotated[
        float, FieldFacts("hyperparameter", "temperature of the teacher", "teacher temperature {}", "rising")
    ] = Field(0.07, gt=0, description="pretrain only: divides the teacher's outputs, once it is warm.")
    first_temperature: Annotated[
        float,
        FieldFacts("hyperparameter", "first temperature of the teacher", "first teacher temperature {}", "rising"),
    ] = Field(0.04, gt=0, description="pretrain only: the teacher's temperature in the first epoch.")
    temperature_epochs: Annotated[
        int, FieldFacts("hyperparameter", "warm-up of the temperature", "{} epochs of temperature", "rising")
    ] = Field(30, ge=0, description="pretrain only: epochs over which it goes to teacher_temperature.")
    teacher_momentum: Annotated[
        float, FieldFacts("hyperparameter", "momentum of the teacher", "teacher momentum {}", "rising")
    ] = Field(0.99, ge=0, le=1, description="pretrain only: of the teacher's moving average; a cosine brings it to 1.")
    centre_momentum: Annotated[
        float, FieldFacts("hyperparameter", "momentum of the centre", "centre momentum {}", "rising")
    ] = Field(0.9, ge=0, le=1, description="pretrain only: of the mean output that is taken off; 1 takes off nothing.")
    projection_width: Annotated[
        int, FieldFacts("hyperparameter", "width of the projection", "projection width {}", "rising")
    ] = Field(2048, ge=1, description="pretrain only: hidden units of the projection head's two layers.")
    prototypes: Annotated[int, FieldFacts("hyperparameter", "prototypes", "{} prototypes", "rising")] = Field(
        4096, ge=2, description="pretrain only: outputs of the projection head."
    )
    last_weight_decay: Annotated[
        float | None, FieldFacts("hyperparameter", "last weight decay", "last weight decay {}", "rising")
    ] = Field(None, ge=0, description="pretrain only: where a cosine brings weight_decay; default it stays.")
    drop_path: Annotated[float, FieldFacts("hyperparameter", "stochastic depth", "stochastic depth {}", "rising")] = (
        Field(
            0.1,
            ge=0,
            lt=1,
            description="pretrain only: share of images for which the student leaves out its last block, fewer before;"
            " Vision Transformers alone.",
        )
    )

    @model_validator(mode="after")
    def _fields_of_pretraining_or_of_labels(self) -> Self:
        method = getattr(self, "method", "")
        unread: tuple[str, ...]
        if method in ("finetune", "linear_probe", "knn"):
            unread, reader = PRETRAINING_FIELDS, f"method={PRETRAINING}, not with {method}"
        elif method == PRETRAINING:
            unread, reader = OF_LABELS, f"a training by labels, not with method={PRETRAINING}"
        else:
            return self
        for name in unread:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name}={value} goes with {reader}; leave it out")
        return self

    @model_validator(mode="after")
    def _schedule_of_pretraining(self) -> Self:
        if getattr(self, "method", "") != PRETRAINING:
            return self
        schedule = getattr(self, "schedule", "cosine")
        if schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule={schedule} does not go with method={PRETRAINING}; use cosine or constant")
        if getattr(self, "resize", "") == "pad_mean":
            raise ValueError(f"resize=pad_mean does not go with method={PRETRAINING}, which crops; use pad or bilinear")
        return self


def local_size(image_size: int, patch_size: int | None) -> int | None:
    """Return the edge of a local view in pixels: 3/7 of the image's, as 96 of 224, in whole patches.

    None where that is the whole image: then there are none. Models without patches count in strides of 32 pixels, below
    which most refuse images.
    """
    patch = patch_size or USUAL_STRIDE
    edge = max(patch, patch * round(3 * image_size / (7 * patch)))
    return edge if edge < image_size else None


def views_as_images(config: ObjectiveFields, image_size: int, patch_size: int | None) -> float:
    """Return how many whole images the views of one are, by their area; of a volume's they are fewer."""
    local = local_size(image_size, patch_size)
    share = 0.0 if local is None else (local / image_size) ** 2
    return 2 + config.local_views * share


def projection_parameters(config: ObjectiveFields) -> int:
    """Return about how many parameters the projection head has: as if features were as wide as its hidden layers."""
    width = config.projection_width
    return 2 * width**2 + BOTTLENECK * (width + config.prototypes)
