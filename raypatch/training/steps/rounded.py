"""Weights in bfloat16 beside their float32 masters, so that no pass has to cast them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose products autocast rounds. Classes derived from them may do other things with their weights."""


@dataclass(frozen=True)
class RoundedWeight:
    """A weight of the model, its bfloat16 copy, and where the copy's gradient is kept in float32."""

    master: nn.Parameter
    copy: nn.Parameter
    gradient: torch.Tensor


class RoundedWeights:
    """bfloat16 copies of a model's weights, which stand in for them during a pass.

    Autocast makes such copies in fresh memory in every pass, and a float32 gradient of each. Here both stay where
    they are; the numbers are the same. The optimizer, checkpoints and evaluation see the masters alone.
    """

    def __init__(self, model: nn.Module) -> None:
        """Make the copies. Whether a weight trains must be decided by now: frozen ones are rounded once, here."""
        self._places: list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]] = []
        copies: dict[nn.Parameter, nn.Parameter] = {}
        self._trained: list[RoundedWeight] = []
        for module in model.modules():
            if type(module) not in LAYERS:
                continue
            for name, master in module.named_parameters(recurse=False):
                if master.dtype != torch.float32:
                    continue
                if master not in copies:
                    rounded = master.detach().to(torch.bfloat16)
                    copies[master] = nn.Parameter(rounded, requires_grad=master.requires_grad)
                    if master.requires_grad:
                        gradient = torch.zeros_like(master, requires_grad=False)
                        self._trained.append(RoundedWeight(master, copies[master], gradient))
                self._places.append((module, name, master, copies[master]))

    def round(self) -> None:
        """Bring the copies to what the masters are now."""
        if self._trained:
            copies = [weight.copy.detach() for weight in self._trained]
            masters = [weight.master.detach() for weight in self._trained]
            torch._foreach_copy_(copies, masters)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model's layers read the copies: around the backward pass too, which may compute layers once more.

        Afterwards the copies have no gradients; `add_gradients` brings them to the masters.
        """
        for module, name, _, copy in self._places:
            module._parameters[name] = copy
        try:
            yield
        finally:
            for module, name, master, copy in self._places:
                module._parameters[name] = master
                copy.grad = None

    def add_gradients(self) -> None:
        """Add the copies' gradients to the masters', where these have any."""
        first: list[RoundedWeight] = []
        further: list[RoundedWeight] = []
        for weight in self._trained:
            if weight.copy.grad is not None:
                (first if weight.master.grad is None else further).append(weight)
        if first:
            torch._foreach_copy_([weight.gradient for weight in first], _gradients(first))
        if further:
            torch._foreach_add_([weight.gradient for weight in further], _gradients(further))
        for weight in first:
            weight.master.grad = weight.gradient


def _gradients(weights: list[RoundedWeight]) -> list[torch.Tensor]:
    found = []
    for weight in weights:
        assert weight.copy.grad is not None, "see add_gradients"
        found.append(weight.copy.grad)
    return found
