"""Weights in bfloat16 beside their float32 masters, so that no pass has to cast them."""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from raypatch.models.families.parts.patches import PatchConvolution

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, PatchConvolution)
"""Layers whose products autocast rounds. Classes derived from them may do other things with their weights."""


@dataclass(eq=False)
class RoundedWeight:
    """A weight of the model that trains, and its bfloat16 copy.

    gradient: where the copy's gradient becomes float32, in the same memory in every step. version: torch's count of
    changes to the master when the copy was made of it, where that is known.
    """

    master: nn.Parameter
    copy: nn.Parameter
    gradient: torch.Tensor | None = None
    version: int | None = None

    @property
    def is_current(self) -> bool:
        """Whether the copy is known to be what the master is now."""
        return self.version == self.master._version

    @torch.no_grad()
    def round(self) -> None:
        """Bring the copy to what the master is now, and remember that."""
        self.copy.copy_(self.master)
        self.version = self.master._version

    def float_gradient(self) -> torch.Tensor:
        """Memory for the gradient in float32."""
        if self.gradient is None:
            self.gradient = torch.empty_like(self.master, requires_grad=False)
        return self.gradient


class RoundedWeights:
    """bfloat16 copies of a model's weights, which stand in for them during a pass.

    Autocast makes such copies in fresh memory in every pass, and a float32 gradient of each. Here both stay where
    they are; the numbers are the same. The optimizer, checkpoints and evaluation see the masters alone.
    """

    def __init__(self, model: nn.Module) -> None:
        """Make the copies. Whether a weight trains must be decided by now: frozen ones are rounded once, here."""
        self._places: list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]] = []
        copies: dict[nn.Parameter, nn.Parameter] = {}
        self.trained: list[RoundedWeight] = []
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
                        self.trained.append(RoundedWeight(master, copies[master]))
                self._places.append((module, name, master, copies[master]))

    def round(self) -> None:
        """Bring the copies to what the masters are now."""
        stale = [weight for weight in self.trained if not weight.is_current]
        if stale:
            copies = [weight.copy.detach() for weight in stale]
            masters = [weight.master.detach() for weight in stale]
            torch._foreach_copy_(copies, masters)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model's layers read the copies: around the backward pass too, which may compute layers once more.

        Afterwards the copies have no gradients; before, `add_gradients` brings them to the masters.
        """
        for module, name, _, copy in self._places:
            module._parameters[name] = copy
        try:
            yield
        finally:
            for module, name, master, copy in self._places:
                module._parameters[name] = master
                copy.grad = None

    def add_gradients(self, but: Collection[RoundedWeight] = ()) -> None:
        """Move the copies' gradients to their masters, added to what these have.

        but: weights whose gradients stay.
        """
        first: list[RoundedWeight] = []
        further: list[RoundedWeight] = []
        for weight in self.trained:
            if weight.copy.grad is not None and weight not in but:
                (first if weight.master.grad is None else further).append(weight)
        if first:
            torch._foreach_copy_([weight.float_gradient() for weight in first], _gradients(first))
        if further:
            torch._foreach_add_([weight.float_gradient() for weight in further], _gradients(further))
        for weight in first:
            weight.master.grad = weight.gradient
        for weight in first + further:
            weight.copy.grad = None


def _gradients(weights: list[RoundedWeight]) -> list[torch.Tensor]:
    found = []
    for weight in weights:
        assert weight.copy.grad is not None, "see add_gradients"
        found.append(weight.copy.grad)
    return found
