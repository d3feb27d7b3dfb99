"""One optimizer step on one batch, in as many forward passes as the memory asks for."""

import logging

import torch
from torch import nn

from raypatch.data.augment import augment, normalize, to_float
from raypatch.data.catalog import Task
from raypatch.evaluate import classification_loss
from raypatch.runtime import Precision

logger = logging.getLogger(__name__)


class TrainingStep:
    """Augment, forward, backward and update. Gradients of micro-batches add up to those of the whole batch."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        task: Task,
        mean: torch.Tensor,
        std: torch.Tensor,
        precision: Precision,
        micro_batch: int,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.task: Task = task
        self.mean = mean
        self.std = std
        self.precision = precision
        self.micro_batch = micro_batch

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, parameters: torch.Tensor | None) -> torch.Tensor:
        """Take one step on uint8 images (B, C, *spatial); parameters: of their augmentation, None for none.

        Returns the batch's mean loss on the device, without waiting for it. Out of memory halves the micro-batch
        and takes the same step again; a batch of one that does not fit raises torch.OutOfMemoryError.
        """
        while True:
            try:
                return self._step(images, labels, parameters)
            except torch.OutOfMemoryError:
                self.optimizer.zero_grad(set_to_none=True)
                if self.micro_batch == 1:
                    raise
                self.micro_batch = max(1, self.micro_batch // 2)
                torch.cuda.empty_cache()
                logger.warning("out of memory: going on with micro_batch=%d", self.micro_batch)

    def _step(self, images: torch.Tensor, labels: torch.Tensor, parameters: torch.Tensor | None) -> torch.Tensor:
        inputs = to_float(images) if parameters is None else augment(images, parameters)
        inputs = normalize(inputs, self.mean, self.std)  # (B, 3, *spatial)
        total = torch.zeros((), device=inputs.device)
        for part, part_labels in zip(inputs.split(self.micro_batch), labels.split(self.micro_batch), strict=True):
            with torch.autocast(part.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                logits = self.model(part)
            loss = classification_loss(logits, part_labels, self.task) * (len(part) / len(inputs))
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total
