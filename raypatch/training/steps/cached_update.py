"""AdamW of one large weight after the other, each while it lies in the processor's cache."""

from typing import Any

import torch
from torch import Tensor

from raypatch.training.steps.rounded import RoundedWeight, RoundedWeights

_Group = dict[str, Any]

LEAST_NUMBERS = 2**16
"""Numbers of a weight from which on it is updated by itself; of smaller ones the calls cost more than the memory."""


def can_update_in_cache(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether `CachedUpdate` takes this optimizer: AdamW or Adam, fused, of a model on a CPU."""
    # torch derives AdamW from Adam. A stack's optimizers are many.
    return isinstance(optimizer, torch.optim.Adam) and bool(optimizer.defaults["fused"]) and device.type == "cpu"


class CachedUpdate:
    """A step of AdamW on the gradients of bfloat16 copies: the ordinary step's numbers, in fewer passes over memory.

    That one goes over all weights three times: gradients become float32, AdamW moves the masters, the copies
    are rounded anew. Each time they come from memory, which is a third of a training step with few tokens. Here a
    weight goes through all three before the next one does.
    """

    def __init__(self, rounded: RoundedWeights, optimizer: torch.optim.Optimizer) -> None:
        self._rounded, self._optimizer = rounded, optimizer
        group_of = {each: group for group in optimizer.param_groups for each in group["params"]}
        self._large: dict[RoundedWeight, _Group] = {}
        for weight in rounded.trained:
            if weight.master in group_of and weight.master.numel() >= LEAST_NUMBERS:
                self._large[weight] = group_of[weight.master]
        # In float32, of one weight after the other, so that it stays in the cache.
        self._gradient = torch.empty(max((weight.master.numel() for weight in self._large), default=0))
        self._one = torch.ones(())

    def step(self) -> None:
        """Move every weight that has a gradient: of a large one its copy's, of others their own too.

        No master has one afterwards.
        """
        # In the model's order: the first layers' gradients came last, and may still be in the cache.
        alone = dict.fromkeys(weight for weight in self._large if self._can_move_alone(weight))
        self._rounded.add_gradients(but=alone)
        self._move_rest()
        for weight in alone:
            self._move(weight)

    def _can_move_alone(self, weight: RoundedWeight) -> bool:
        # The optimizer makes a weight's state in its first step. Gradients of earlier passes lie in the master.
        has_state = weight.master in self._optimizer.state
        return has_state and weight.copy.grad is not None and weight.master.grad is None

    @torch.no_grad()
    def _move_rest(self) -> None:
        """Take the step of the weights whose gradients lie in themselves."""
        rest = [
            (group, [master for master in group["params"] if master.grad is not None])
            for group in self._optimizer.param_groups
        ]
        if not all(master in self._optimizer.state for _, masters in rest for master in masters):
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            return
        # Without what torch's own step and zero_grad do around this, which takes longer than the step itself.
        for group, masters in rest:
            if masters:
                self._adamw(group, masters, [master.grad for master in masters])
            for master in masters:
                master.grad = None

    @torch.no_grad()
    def _move(self, weight: RoundedWeight) -> None:
        assert weight.copy.grad is not None, "see _can_move_alone"
        gradient = self._gradient[: weight.master.numel()].view_as(weight.master)
        gradient.copy_(weight.copy.grad)
        self._adamw(self._large[weight], [weight.master], [gradient])
        weight.round()
        # Memory that the first step took: it will not be asked for again.
        weight.gradient = None

    def _adamw(self, group: _Group, masters: list[Tensor], gradients: list[Tensor]) -> None:
        """A step of weights that have states."""
        states = [self._optimizer.state[master] for master in masters]
        for state in states:
            # As torch's own step: they are counted before, from 1.
            state["step"] += self._one
        move = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        move(
            masters,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
