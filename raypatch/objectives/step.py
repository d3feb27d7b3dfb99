"""One step of a pretraining, in as many passes as the memory asks for."""

import logging

import torch
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.prepared import PreparedModel
from raypatch.objectives import Learner
from raypatch.objectives.schedules import Moment, learning_rate, weight_decay
from raypatch.objectives.views import DrawnView
from raypatch.training.optim import set_learning_rates

logger = logging.getLogger(__name__)


class PretrainingStep:
    """Views, forward, backward, update. Gradients of micro-batches add up to those of the whole batch.

    micro_batch: images of one pass, each with all its views.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        prepared: PreparedModel,
        config: TrialConfig,
        *,
        micro_batch: int,
    ) -> None:
        self.learner, self.optimizer, self.config = learner, optimizer, config
        self.device, self.cast = prepared.device, prepared.precision == "bfloat16"
        self.micro_batch = micro_batch

    def __call__(self, images: Tensor, drawn: list[DrawnView], moment: Moment) -> Tensor:
        """Take a step on uint8 images (B, C, *spatial), and return the batch's mean loss on the device.

        Out of memory halves the micro-batch and takes the same step again; one image that does not fit raises
        torch.OutOfMemoryError.
        """
        while True:
            try:
                total = self._gradients(images, drawn, moment)
                break
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
            # Here, not in the handler: its traceback still holds the broken pass's tensors.
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self.micro_batch = max(1, self.micro_batch // 2)
            logger.warning("out of memory: going on with micro_batch=%d", self.micro_batch)
        self._update(moment)
        return total

    def _gradients(self, images: Tensor, drawn: list[DrawnView], moment: Moment) -> Tensor:
        self.learner.begin(moment)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(images), self.micro_batch):
            rows = slice(start, start + self.micro_batch)
            part = images[rows]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cast):
                loss = self.learner.loss(part, [view.take(rows) for view in drawn])
            loss = loss * (len(part) / len(images))
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _update(self, moment: Moment) -> None:
        rate, decay = learning_rate(self.config, moment), weight_decay(self.config, moment)
        set_learning_rates(self.optimizer, (rate, rate))
        for group in self.optimizer.param_groups:
            # Groups without decay keep to that.
            if self.config.decay_1d or group["params"][0].ndim > 1:
                group["weight_decay"] = decay
        self.learner.before_update()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.learner.student.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.learner.after_update()
