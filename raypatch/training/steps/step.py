"""One optimizer step on one batch, in as many forward passes as the memory asks for."""

import contextlib
import itertools
import logging
from collections.abc import Callable

import torch
from torch import nn

from raypatch.config import TrialConfig
from raypatch.models.memory import is_recorded
from raypatch.models.prepared import PreparedModel
from raypatch.training.loss import Loss
from raypatch.training.steps.cached_update import CachedUpdate, can_update_in_cache
from raypatch.training.steps.compiled import CompiledModel
from raypatch.training.steps.recorded import OUT_OF_MEMORY, RecordedStep
from raypatch.training.steps.rounded import RoundedWeights

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 3
"""Steps taken before recording: libraries choose their kernels and
the optimizer makes its state in them.
"""


class TrainingStep:
    """Augment, forward, backward and update.

    Gradients of micro-batches add up to those of the whole batch.

    loss: what is minimised. micro_batch: images of one forward pass. fixed_buffers: take full
    batches from buffers of fixed addresses; on a CUDA device, where this is the default for short steps
    (`is_recorded`), such a step is recorded once as a CUDA graph and replayed (the optimizer must be
    capturable), elsewhere it runs as it is. compiled: compile the full passes; a step that is recorded
    has no use for it.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        config: TrialConfig,
        *,
        micro_batch: int,
        fixed_buffers: bool | None = None,
        compiled: bool = False,
    ) -> None:
        self.prepared = prepared
        self.optimizer = optimizer
        self.loss = loss
        self.batch_size = config.batch_size
        self.clip_norm = config.clip_norm
        self.micro_batch = micro_batch
        self._rounded = RoundedWeights(prepared.model) if prepared.precision == "bfloat16" else None
        self._cached_update: CachedUpdate | None = None
        # A norm of all gradients is known after the last of them alone.
        if self._rounded is not None and config.clip_norm is None and can_update_in_cache(optimizer, prepared.device):
            self._cached_update = CachedUpdate(self._rounded, optimizer)
        record = fixed_buffers
        if record is None:
            record = prepared.device.type == "cuda" and is_recorded(config, prepared.facts, micro_batch)
        # -1: never record.
        self._warm_up_left = WARM_UP_STEPS if record else -1
        self._recorded: RecordedStep | None = None
        self._compiled = CompiledModel(prepared.model) if compiled and not record else None

    def __call__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        parameters: torch.Tensor | None,
    ) -> torch.Tensor:
        """Take one step on uint8 images (B, C, *spatial).

        parameters: of their augmentation, None for none.
        Returns the batch's mean loss on the device, without waiting for it; the next call may
        overwrite it. Out of memory halves the micro-batch and takes the same step again; a batch of
        one that does not fit raises torch.OutOfMemoryError.
        """
        if self._may_record(images):
            self._record(images, labels, parameters)
        if self._recorded is not None and len(images) == self.batch_size:
            return self._recorded((images, labels, parameters), self._step)
        while True:
            try:
                return self._step(images, labels, parameters)
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
            # Here, not in the handler: its traceback still holds the broken step's tensors.
            self._free()
            self.micro_batch = max(1, self.micro_batch // 2)
            logger.warning("out of memory: going on with micro_batch=%d", self.micro_batch)

    def _may_record(self, images: torch.Tensor) -> bool:
        """Whether to record now: after the warm-up, on a full batch that goes through in one pass."""
        if self._recorded is not None or self._warm_up_left < 0 or len(images) < self.batch_size:
            return False
        if self._warm_up_left > 0:
            self._warm_up_left -= 1
            return False
        return self.micro_batch >= self.batch_size

    def _record(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        parameters: torch.Tensor | None,
    ) -> None:
        """Record the step; where the second copy of its memory does not fit, go on without."""
        with contextlib.suppress(*OUT_OF_MEMORY):
            self._recorded = RecordedStep(self._step, (images, labels, parameters))
        if self._recorded is None:
            self._warm_up_left = -1
            self._free()
            logger.warning("no memory to record the step as a CUDA graph: going on without")

    def _free(self) -> None:
        """Drop what a broken step or recording left behind.

        Gradients of passes that went through would count twice in the next try, and those of a
        recording were never computed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()

    def _step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        parameters: torch.Tensor | None,
    ) -> torch.Tensor:
        inputs = self.prepared.inputs(images, parameters)  # (B, 3, *spatial)
        labels = self.prepared.targets(labels, parameters)
        if self._rounded is None:
            return self._passes_and_update(inputs, labels)
        self._rounded.round()
        with self._rounded.in_place():
            return self._passes_and_update(inputs, labels)

    def _passes_and_update(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=inputs.device)
        parts = zip(
            torch.split(inputs, self.micro_batch),
            torch.split(labels, self.micro_batch),
            strict=True,
        )
        for part, part_labels in parts:
            if self._rounded is not None:
                # Of the pass before: in bfloat16 a sum would lose what the next one adds.
                self._rounded.add_gradients()
            total = total + self._pass(part, part_labels, share=len(part) / len(inputs))
        self._update()
        return total

    def _pass(self, inputs: torch.Tensor, labels: torch.Tensor, *, share: float) -> torch.Tensor:
        """Forward and backward of a micro-batch, which is a share of the batch; return its share of the loss."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._rounded is not None):
            logits = self._model_for(inputs)(inputs)
        loss = self.loss(logits, labels) * share
        # Of a stack there is a loss for each trial, which hangs on that trial's weights alone.
        torch.autograd.backward(loss.sum())
        return loss.detach()

    def _model_for(self, inputs: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """What computes the logits of a micro-batch."""
        is_full = len(inputs) == min(self.micro_batch, self.batch_size)
        return self._compiled if self._compiled is not None and is_full else self.prepared.model

    def _update(self) -> None:
        if self._cached_update is not None:
            self._cached_update.step()
            return
        if self._rounded is not None:
            self._rounded.add_gradients()
        if self.clip_norm is not None:
            parameters = [group["params"] for group in self.optimizer.param_groups]
            nn.utils.clip_grad_norm_(itertools.chain(*parameters), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
