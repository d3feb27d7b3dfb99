"""One step of several trials at once."""

import contextlib

import torch
from torch import Tensor
from torch.func import vmap

from raypatch.config import TrialConfig
from raypatch.machine.runtime import rounded_products
from raypatch.models.prepared import PreparedModel
from raypatch.training.loss import Loss
from raypatch.training.stacked_models.rows import StackedModels
from raypatch.training.step import TrainingStep


class StackedStep(TrainingStep):
    """A `TrainingStep` of S trials: images (B, S, C, *spatial), labels and parameters likewise, losses (S,).

    prepared, config: of one of them. It is recorded, and halves its passes, as that of one trial.
    """

    def __init__(
        self, stack: StackedModels, prepared: PreparedModel, loss: Loss, config: TrialConfig, *, micro_batch: int
    ) -> None:
        optimizers = [optimizer for optimizer in stack.optimizers if optimizer is not None]
        super().__init__(prepared, optimizers[0], loss, config, micro_batch=micro_batch)
        self.stack = stack

    def _free(self) -> None:
        self.stack.zero_grad()
        super()._free()

    def _step(self, images: Tensor, labels: Tensor, parameters: Tensor | None) -> Tensor:
        flat = None if parameters is None else parameters.flatten(0, 1)
        inputs = self.prepared.inputs(images.flatten(0, 1), flat).unflatten(0, images.shape[:2])
        total = torch.zeros(images.shape[1], device=inputs.device)
        rounded = self.prepared.precision == "bfloat16"
        cast = rounded and self._casting_pays(inputs)
        # Around the backward pass too: its products are rounded alike.
        with rounded_products() if rounded and not cast else contextlib.nullcontext():
            parts = zip(inputs.split(self.micro_batch), labels.split(self.micro_batch), strict=True)
            for part, part_labels in parts:
                with torch.autocast(part.device.type, torch.bfloat16, enabled=cast):
                    logits = self.stack(part)
                losses = vmap(self.loss, in_dims=1)(logits, part_labels) * (len(part) / len(inputs))
                # A trial's loss hangs on its own row alone, so that the sum has the gradients of all.
                torch.autograd.backward(losses.sum())
                total += losses.detach()
        self.stack.take_steps(self.clip_norm)
        return total
