"""One step of several trials at once: a `TrainingStep` whose model is the stack."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor
from torch.func import vmap

from raypatch.config import TrialConfig
from raypatch.models.prepared import PreparedModel
from raypatch.training.loss import Loss
from raypatch.training.stacked_models.rows import RowOptimizers, StackedModels
from raypatch.training.steps.step import TrainingStep


@dataclass(frozen=True)
class PreparedStack(PreparedModel):
    """A stack of models, which takes images (B, S, C, *spatial), of each trial its own."""

    def inputs(self, images: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Bring images (B, S, C, *spatial) to what the models take: (B, S, 3, *size)."""
        drawn = None if parameters is None else parameters.flatten(0, 1)
        inputs: Tensor = super().inputs(images.flatten(0, 1), drawn).unflatten(0, images.shape[:2])
        return inputs


def make_stacked_step(
    models: Sequence[PreparedModel],
    optimizers: Sequence[torch.optim.Optimizer | None],
    loss: Loss,
    config: TrialConfig,
    *,
    micro_batch: int,
) -> tuple[TrainingStep, StackedModels]:
    """Stack the models of S trials; return their step, and the stack to release at the end.

    The step takes images (B, S, C, *spatial), labels and parameters likewise, and returns losses (S,). It is recorded
    and halves its passes as that of one trial. optimizers: None for a trial that goes along without a step. loss,
    config: of one of the trials.
    """
    stack = StackedModels([each.model for each in models], [optimizer is not None for optimizer in optimizers])
    of_one = {field.name: getattr(models[0], field.name) for field in fields(PreparedModel)}
    steps = RowOptimizers(stack, optimizers, config.clip_norm)

    def losses(logits: Tensor, labels: Tensor) -> Tensor:
        each: Tensor = vmap(loss, in_dims=1)(logits, labels)
        return each

    step = TrainingStep(
        PreparedStack(**of_one | {"model": stack}),
        cast(torch.optim.Optimizer, steps),
        losses,
        # Each trial's gradients are clipped by themselves.
        config.model_copy(update={"clip_norm": None}),
        micro_batch=micro_batch,
    )
    return step, stack
