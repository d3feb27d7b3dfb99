"""Heads of several trials as one: each product is one of all."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from raypatch.config import TrialConfig
from raypatch.training.loss import Loss
from raypatch.training.stacked.optimizer import StackedOptimizer

VALUES_AT_ONCE = 2**24
"""Features times heads in memory at once while a split is evaluated."""

SMALL_STEP = 2**26
"""Multiply-accumulates of one step, forward, up to which a CPU takes it on one thread."""


class Stack:
    """The heads of T trials as one: parameters (T, ...), products for all T at once.

    heads, optimizers: of the trials. config: of one of them. loss: of a batch of one trial.
    """

    def __init__(
        self,
        heads: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        config: TrialConfig,
        loss: Loss,
    ) -> None:
        self.config, self._loss = config, loss
        self.size = len(heads)
        # Its own parameters are never used: those of a trial come with each call.
        self._template = copy.deepcopy(heads[0]).requires_grad_(False)
        self.parameters: dict[str, Tensor] = {}
        for name, _ in heads[0].named_parameters():
            rows = [head.get_parameter(name).detach() for head in heads]
            self.parameters[name] = torch.stack(rows).requires_grad_()
        self.optimizer = StackedOptimizer(config.optimizer, self.parameters, heads, optimizers)

    @property
    def is_small(self) -> bool:
        """Whether a step is so little work that dividing it among threads would cost more."""
        parameters = sum(parameter.numel() for parameter in self.parameters.values())
        return parameters * self.config.batch_size < SMALL_STEP

    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """Take one step of each trial on its own batch; return the mean losses (T,).

        features: (T, B, ...). labels: (T, B) or (T, B, L).
        """
        losses = vmap(self._loss_of)(self.parameters, features, labels)
        # A trial's loss hangs on its own row alone, so that the sum has the gradients of all.
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        if self.config.clip_norm is not None:
            gradients = clip_rows(gradients, self.config.clip_norm)
        self.optimizer.step(dict(zip(self.parameters, gradients, strict=True)))
        return losses.detach()

    @torch.no_grad()
    def logits(self, features: Tensor, device: torch.device) -> Tensor:
        """Logits (T, N, outputs) of every trial for the same features (N, ...)."""
        values = self.size * math.prod(features.shape[1:])
        parts = features.split(max(1, VALUES_AT_ONCE // values))
        every = vmap(self._logits, in_dims=(0, None))
        return torch.cat([every(self.parameters, part.to(device)) for part in parts], dim=1)

    def _logits(self, parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._template, parameters, (features,))
        return logits

    def _loss_of(self, parameters: dict[str, Tensor], features: Tensor, labels: Tensor) -> Tensor:
        return self._loss(self._logits(parameters, features), labels)


def clip_rows(gradients: Sequence[Tensor], norm: float) -> tuple[Tensor, ...]:
    """Shorten each trial's gradients (T, ...) to a norm of all its parameters together, as torch's clip_grad_norm_."""
    squares = [gradient.flatten(1).square().sum(1) for gradient in gradients]
    scale = (norm / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)
    return tuple(gradient * scale.view(-1, *(1,) * (gradient.ndim - 1)) for gradient in gradients)
