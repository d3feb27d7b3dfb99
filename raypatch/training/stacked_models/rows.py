"""Models of several trials as one: their weights are the rows of stacked ones."""

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

SLOW_FALLBACK = "There is a performance drop"
"""How torch begins to say that an operation goes model by model, as fused attention does on a CPU."""


class StackedModels:
    """The models of S trials, which share a shape, as one of stacked weights (S, ...).

    models: they are changed so that their parameters and buffers are rows of the stacked ones, until `release`.
    optimizers: of each model, None for one whose row is a copy that nothing updates.
    """

    def __init__(self, models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer | None]) -> None:
        self.models, self.optimizers = models, optimizers
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        for name, parameter in models[0].named_parameters():
            rows = self._stack(model.get_parameter(name) for model in models)
            self.parameters[name] = rows.requires_grad_(parameter.requires_grad)
        for name, _ in models[0].named_buffers():
            self.buffers[name] = self._stack(model.get_buffer(name) for model in models)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (B, S, outputs) of inputs (B, S, 3, *spatial), of each model its own."""
        return self._each_model(self.parameters, self.buffers, inputs)

    def rehearse(self, inputs: Tensor) -> None:
        """Pass inputs (B, S, 3, *spatial) through the models without a trace.

        Raises RuntimeError for a model that cannot be stacked, such as one with dropout, which would draw otherwise.
        """
        copies = {name: buffer.clone() for name, buffer in self.buffers.items()}
        with torch.no_grad():
            self._each_model(self.parameters, copies, inputs)

    def take_steps(self, clip_norm: float | None) -> None:
        """Let each optimizer step by the gradients that the stacked weights have. clip_norm: of each model's own."""
        for place, (model, optimizer) in enumerate(zip(self.models, self.optimizers, strict=True)):
            if optimizer is None:
                continue
            for name, rows in self.parameters.items():
                if rows.grad is not None:
                    model.get_parameter(name).grad = rows.grad[place]
            if clip_norm is not None:
                groups = [group["params"] for group in optimizer.param_groups]
                nn.utils.clip_grad_norm_(itertools.chain(*groups), clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for rows in self.parameters.values():
            rows.grad = None

    def release(self) -> None:
        """Give each model weights of its own, with the values that they have."""
        for model, optimizer in zip(self.models, self.optimizers, strict=True):
            if optimizer is None:
                continue
            for tensor in itertools.chain(model.parameters(), model.buffers()):
                tensor.data = tensor.data.clone()

    def _stack(self, tensors: Iterator[Tensor]) -> Tensor:
        """The tensors as rows of one, which they become; a copy of those that nothing updates."""
        own = list(tensors)
        rows = torch.stack([tensor.detach() for tensor in own])
        for tensor, row, optimizer in zip(own, rows, self.optimizers, strict=True):
            if optimizer is not None:
                tensor.data = row
        return rows

    def _each_model(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        # Its own weights are not used: those of a trial come with each call.
        shape = self.models[0]

        def forward(own: dict[str, Tensor], kept: dict[str, Tensor], images: Tensor) -> Tensor:
            logits: Tensor = functional_call(shape, (own, kept), (images,))
            return logits

        every: Callable[..., Tensor] = vmap(forward, in_dims=(0, 0, 1), out_dims=1, randomness="error")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=SLOW_FALLBACK)
            return every(parameters, buffers, inputs)
