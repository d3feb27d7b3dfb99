"""Models of several trials as one: their weights are the rows of stacked ones."""

import contextlib
import copy
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from raypatch.machine.runtime import Precision

SLOW_FALLBACK = "There is a performance drop"
"""How torch begins to say that an operation goes model by model, as fused attention does on a CPU."""


CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


class StackedModels(nn.Module):
    """The models of S trials, which share a shape, as one of stacked weights (S, ...).

    models: they are changed so that their parameters and buffers are rows of the stacked ones, until `release`.
    bound: whether each model is; the row of another is a copy.
    """

    def __init__(self, models: Sequence[nn.Module], bound: Sequence[bool]) -> None:
        super().__init__()
        # In a tuple, as they are no parts of this module.
        self.models, self.bound = tuple(models), tuple(bound)
        self.shape = copy.deepcopy(models[0])
        made: dict[nn.Parameter, nn.Parameter] = {}
        for place, module in self.shape.named_modules():
            for name, own in module._parameters.items():
                if own is None:
                    continue
                if own not in made:
                    full = f"{place}.{name}" if place else name
                    rows = self._stack([model.get_parameter(full) for model in models])
                    made[own] = nn.Parameter(rows, requires_grad=models[0].get_parameter(full).requires_grad)
                module._parameters[name] = made[own]
        self.kept = {name: self._stack([model.get_buffer(name) for model in models]) for name in _buffers(models[0])}

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, S, outputs) of inputs (B, S, 3, *spatial), of each model its own."""
        return self._each_model(self.kept, inputs)

    def rehearse(self, inputs: Tensor, precision: Precision) -> None:
        """Pass inputs (B, S, 3, *spatial) through the models without a trace.

        Raises RuntimeError for a model that cannot be stacked, such as one with dropout, which would draw otherwise.
        """
        rounded = precision == "bfloat16"
        with torch.no_grad(), torch.autocast(inputs.device.type, torch.bfloat16, enabled=rounded):
            self._each_model({name: buffer.clone() for name, buffer in self.kept.items()}, inputs)

    def release(self) -> None:
        """Give each model weights of its own, with the values that they have."""
        for model, is_bound in zip(self.models, self.bound, strict=True):
            if is_bound:
                for tensor in itertools.chain(model.parameters(), model.buffers()):
                    tensor.data = tensor.data.clone()

    def _stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """The tensors as rows of one, which those of bound models become."""
        rows = torch.stack([tensor.detach() for tensor in tensors])
        for tensor, row, is_bound in zip(tensors, rows, self.bound, strict=True):
            if is_bound:
                tensor.data = row
        return rows

    def _each_model(self, buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        # Asked now: rounded copies may stand in for the weights.
        weights: dict[str, Tensor] = dict(self.shape.named_parameters())

        def logits_of(own: dict[str, Tensor], kept: dict[str, Tensor], images: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.shape, (own, kept), (images,))
            return logits

        casts = AutocastInside() if torch.is_autocast_enabled(inputs.device.type) else contextlib.nullcontext()
        with warnings.catch_warnings(), casts:
            warnings.filterwarnings("ignore", message=SLOW_FALLBACK)
            every: Tensor = vmap(logits_of, in_dims=(0, 0, 1), out_dims=1, randomness="error")(weights, buffers, inputs)
        return every


class AutocastInside(TorchFunctionMode):
    """Casts what convolutions take to bfloat16, as autocast does outside of vmap: inside it sees products alone.

    Batch statistics, which outside take both precisions at once, are computed in float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in CONVOLUTIONS:
            args = [arg.bfloat16() if isinstance(arg, Tensor) else arg for arg in args]
        if func is F.batch_norm:
            images, *others = args
            return func(images.float(), *others, **(kwargs or {})).to(images.dtype)
        return func(*args, **(kwargs or {}))


class RowOptimizers:
    """The optimizers of a stack's trials as one: each steps by the gradients of its rows.

    optimizers: None for a trial that takes no steps. clip_norm: of the gradients of each trial.
    """

    def __init__(
        self, stack: StackedModels, optimizers: Sequence[torch.optim.Optimizer | None], clip_norm: float | None
    ) -> None:
        self.stack, self.optimizers, self.clip_norm = stack, optimizers, clip_norm
        # Asked now: in a step rounded copies stand in for them.
        self.rows = dict(stack.shape.named_parameters())

    def step(self) -> None:
        """Let each take a step."""
        for place, (model, optimizer) in enumerate(zip(self.stack.models, self.optimizers, strict=True)):
            if optimizer is None:
                continue
            for name, rows in self.rows.items():
                if rows.grad is not None:
                    model.get_parameter(name).grad = rows.grad[place]
            if self.clip_norm is not None:
                groups = [group["params"] for group in optimizer.param_groups]
                nn.utils.clip_grad_norm_(itertools.chain(*groups), self.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def zero_grad(self, *, set_to_none: bool) -> None:
        """Drop the gradients of the stack."""
        assert set_to_none, "as a step asks for"
        for rows in self.rows.values():
            rows.grad = None


def _buffers(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_buffers()]
