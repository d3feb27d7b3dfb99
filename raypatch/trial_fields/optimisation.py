"""How a trial's weights are moved: length, step, learning rates, schedules and early stopping."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from raypatch.fields import FieldFacts

Schedule = Literal["step", "cosine", "constant", "plateau"]


class OptimisationFields(BaseModel):
    """Fields of a training by gradient. The encoder is all of a model but its head."""

    epochs: Annotated[
        int,
        FieldFacts("hyperparameter", "number of epochs", "{} epochs", "rising"),
    ] = Field(100, ge=1, description="Passes over the training images.")
    steps: Annotated[
        int | None,
        FieldFacts("hyperparameter", "number of steps", "{} steps", "rising"),
    ] = Field(None, ge=1, description="Length in optimizer steps, in place of epochs; the last epoch may be cut short.")
    eval_every: Annotated[
        float,
        FieldFacts("hyperparameter", "evaluation interval", "evaluation every {} epochs", "rising"),
    ] = Field(
        1.0,
        gt=0,
        description="Epochs from one evaluation and checkpoint to the next; below 1 a share of all epochs. The last"
        " epoch is always evaluated.",
    )
    patience: Annotated[
        int | None,
        FieldFacts("hyperparameter", "patience", "patience {}", "rising"),
    ] = Field(None, ge=1, description="Training ends after so many evaluations without a better selection score.")
    batch_size: Annotated[
        int,
        FieldFacts("hyperparameter", "batch size", "batch size {}", "rising", "images"),
    ] = Field(8, ge=1, description="Images per optimizer step.")
    drop_last: Annotated[bool, FieldFacts("hyperparameter", "dropping of short batches")] = Field(
        False, description="Leave out the last images of an epoch where they fill no batch."
    )
    optimizer: Annotated[
        Literal["adamw", "adam", "sgd"],
        FieldFacts("hyperparameter", "optimizer"),
    ] = Field("adamw", description="Update rule; sgd has momentum 0.9.")
    lr: Annotated[
        float,
        FieldFacts("hyperparameter", "learning rate", "learning rate {}", "falling"),
    ] = Field(1e-4, gt=0, description="Learning rate of the first epoch after warm-up.")
    head_lr: Annotated[
        float | None,
        FieldFacts("hyperparameter", "learning rate of the head", "head learning rate {}", "falling"),
    ] = Field(None, ge=0, description="Learning rate of the head in place of lr; 0 leaves it as drawn.")
    encoder_lr: Annotated[
        float | None,
        FieldFacts("hyperparameter", "learning rate of the encoder", "encoder learning rate {}", "falling"),
    ] = Field(
        None,
        ge=0,
        description="Learning rate of all but the head in place of lr; 0 freezes these weights, while dropout and batch"
        " statistics go on as in training.",
    )
    weight_decay: Annotated[
        float,
        FieldFacts("hyperparameter", "weight decay", "weight decay {}", "rising"),
    ] = Field(0.05, ge=0, description="Weight decay (decoupled in adamw).")
    decay_1d: Annotated[bool, FieldFacts("hyperparameter", "decay of biases and norms")] = Field(
        True, description="Whether parameters of one dimension, biases and norms, decay too."
    )
    clip_norm: Annotated[
        float | None,
        FieldFacts("hyperparameter", "gradient clipping", "gradients clipped to {}", "rising"),
    ] = Field(None, gt=0, description="Largest norm of a step's gradients together; longer ones are shortened to it.")
    schedule: Annotated[
        Schedule,
        FieldFacts("hyperparameter", "schedule", "{} schedule"),
    ] = Field(
        "step",
        description="Learning rate over the training: step multiplies by step_gamma every step_epochs or step_steps,"
        " cosine falls to min_lr, plateau multiplies by step_gamma when the selection score stalls.",
    )
    head_schedule: Annotated[
        Schedule | None,
        FieldFacts("hyperparameter", "schedule of the head", "{} schedule of the head"),
    ] = Field(None, description="Schedule of the head's learning rate in place of schedule.")
    step_epochs: Annotated[
        int,
        FieldFacts("hyperparameter", "step length", "a step per {} epochs", "rising"),
    ] = Field(30, ge=1, description="Epochs between two steps of the step schedule.")
    step_steps: Annotated[
        int | None,
        FieldFacts("hyperparameter", "step length in optimizer steps", "a step per {} optimizer steps", "rising"),
    ] = Field(None, ge=1, description="Optimizer steps between two steps of the step schedule, not step_epochs.")
    step_gamma: Annotated[
        float,
        FieldFacts("hyperparameter", "step factor", "step factor {}", "rising"),
    ] = Field(0.5, gt=0, le=1, description="Factor of each step of the step and the plateau schedule.")
    plateau_patience: Annotated[
        int,
        FieldFacts("hyperparameter", "patience of the plateau", "plateau after {} evaluations", "rising"),
    ] = Field(
        10, ge=0, description="Evaluations without a better selection score that plateau bears; one more is a plateau."
    )
    min_lr: Annotated[
        float,
        FieldFacts("hyperparameter", "lowest learning rate", "lowest learning rate {}", "falling"),
    ] = Field(
        0.0,
        ge=0,
        description="Where cosine and plateau end. A plateau at a min_lr above 0 ends the training.",
    )
    warmup_epochs: Annotated[
        int,
        FieldFacts("hyperparameter", "warm-up", "{} warm-up epochs", "rising"),
    ] = Field(0, ge=0, description="Epochs over which the learning rate rises linearly to lr.")
    warmup_steps: Annotated[
        int,
        FieldFacts("hyperparameter", "warm-up in steps", "{} warm-up steps", "rising"),
    ] = Field(0, ge=0, description="Optimizer steps over which the learning rate rises linearly to lr.")

    @property
    def schedules(self) -> tuple[Schedule, Schedule]:
        """The schedule of the encoder and that of the head."""
        return self.schedule, self.head_schedule or self.schedule

    @property
    def base_rates(self) -> tuple[float, float]:
        """The learning rate of the encoder and that of the head, before any schedule."""
        encoder = self.lr if self.encoder_lr is None else self.encoder_lr
        head = self.lr if self.head_lr is None else self.head_lr
        return encoder, head

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs != type(self).model_fields["epochs"].default:
            raise ValueError(f"steps={self.steps} and epochs={self.epochs} both give the length; keep one")
        if self.eval_every > 1 and self.eval_every != int(self.eval_every):
            raise ValueError(f"eval_every={self.eval_every:g} must be a whole number of epochs, or a share below 1")
        if self.steps is not None and self.warmup_epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} does not go with steps; use warmup_steps")
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} and warmup_epochs={self.warmup_epochs} both warm up; keep one"
            )
        if self.steps is None and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} must be below epochs={self.epochs}")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} must be below steps={self.steps}")
        return self

    @model_validator(mode="after")
    def _rates_that_move_something(self) -> Self:
        if not any(self.base_rates):
            raise ValueError("encoder_lr=0 and head_lr=0 train nothing; give one of them a rate")
        if self.step_steps is not None and "step" not in self.schedules:
            raise ValueError(f"step_steps={self.step_steps} is of schedule=step; use that, or leave it out")
        if self.min_lr == 0:
            return self
        if not {"cosine", "plateau"} & set(self.schedules):
            raise ValueError(f"min_lr={self.min_lr} is of the schedules cosine and plateau; use one, or leave it out")
        for rate in self.base_rates:
            if 0 < rate <= self.min_lr:
                raise ValueError(f"min_lr={self.min_lr} must be below the learning rate {rate}, which falls to it")
        return self
