"""Optimizers of several trials in one: torch's rules, with a learning rate and a decay for each trial."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam and AdamW, as torch has them by default."""

MOMENTUM = 0.9

MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""What each rule keeps of a parameter, by torch's names."""


class StackedOptimizer:
    """Steps of T trials at once, on parameters (T, ...) that are stacked from those of the trials.

    kind: adamw, adam or sgd. optimizers: torch's own of each trial, which say learning rate and decay
    of each parameter, give their state at the start and take it back by `write_back`.
    """

    def __init__(
        self,
        kind: str,
        parameters: Mapping[str, Tensor],
        heads: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> None:
        self.kind, self.parameters = kind, dict(parameters)
        self.optimizers = optimizers
        self._own = [dict(head.named_parameters()) for head in heads]
        first = next(iter(self.parameters))
        states = [self._state(trial, first) for trial in range(len(heads))]
        self.steps = torch.tensor([float(state.get("step", 0.0)) for state in states], dtype=torch.float64)
        self.moments: dict[str, tuple[Tensor, ...]] = {}
        for name, parameter in self.parameters.items():
            kept = []
            for moment in MOMENTS[kind]:
                rows = [self._moment(trial, name, moment) for trial in range(len(heads))]
                kept.append(torch.stack(rows).to(parameter.device))
            self.moments[name] = tuple(kept)
        self.read_rates()

    def read_rates(self) -> None:
        """Take over the learning rates and decays that the trials' own optimizers have now."""
        self._lr: dict[str, Tensor] = {}
        self._decay: dict[str, Tensor] = {}
        for name in self.parameters:
            groups = [self._group(trial, name) for trial in range(len(self.optimizers))]
            self._lr[name] = torch.tensor([float(group["lr"]) for group in groups], dtype=torch.float64)
            self._decay[name] = torch.tensor([group["weight_decay"] for group in groups], dtype=torch.float64)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Take a step of every trial. gradients: by parameter, (T, ...)."""
        self.steps += 1
        for name, parameter in self.parameters.items():
            rule = self._step_sgd if self.kind == "sgd" else self._step_adam
            rule(name, parameter, gradients[name])

    def write_back(self) -> None:
        """Put the parameters and the state of each trial where its own head and optimizer have them."""
        for trial, (own, optimizer) in enumerate(zip(self._own, self.optimizers, strict=True)):
            for name, parameter in own.items():
                parameter.data.copy_(self.parameters[name].detach()[trial])
                state: dict[str, Tensor] = {}
                if self.kind != "sgd":
                    state["step"] = self.steps[trial].float().to(parameter.device)
                for moment, values in zip(MOMENTS[self.kind], self.moments[name], strict=True):
                    state[moment] = values[trial].clone()
                optimizer.state[parameter] = state

    def _step_adam(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        mean, square = self.moments[name]
        lr, decay = self._lr[name], self._decay[name]
        if self.kind == "adamw":
            parameter.mul_(_rows(1 - lr * decay, parameter))
        else:
            gradient = gradient + _rows(decay, parameter) * parameter
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        size = lr / (1 - BETAS[0] ** self.steps)
        spread = square.sqrt().div_(_rows((1 - BETAS[1] ** self.steps).sqrt(), parameter)).add_(EPSILON)
        parameter.sub_(_rows(size, parameter) * mean / spread)

    def _step_sgd(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        (momentum,) = self.moments[name]
        momentum.mul_(MOMENTUM).add_(gradient + _rows(self._decay[name], parameter) * parameter)
        parameter.sub_(_rows(self._lr[name], parameter) * momentum)

    def _group(self, trial: int, name: str) -> dict[str, float]:
        """The group of a trial's own optimizer in which a parameter is."""
        parameter = self._own[trial][name]
        for group in self.optimizers[trial].param_groups:
            if any(parameter is each for each in group["params"]):
                return group
        raise AssertionError(f"{name} is in no group")

    def _state(self, trial: int, name: str) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.optimizers[trial].state.get(self._own[trial][name], {})
        return state

    def _moment(self, trial: int, name: str, moment: str) -> Tensor:
        """What a trial's optimizer keeps of a parameter; zeros before its first step."""
        kept = self._state(trial, name).get(moment)
        return torch.zeros_like(self._own[trial][name].detach()) if kept is None else kept


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """A number per trial (T,), shaped so that it goes with every value of its row of `like` (T, ...)."""
    return values.to(like.device, like.dtype).view(-1, *(1,) * (like.ndim - 1))
