"""Optimizers and learning-rate schedules of a TrialConfig."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from raypatch.config import TrialConfig
from raypatch.trial_fields.length import Length
from raypatch.trial_fields.optimisation import Schedule

ENCODER, HEAD = 0, 1
"""Places in `TrialConfig.base_rates` and `TrialConfig.schedules`."""


def make_optimizer(model: nn.Module, config: TrialConfig, head: nn.Module | None = None) -> torch.optim.Optimizer:
    """The config's optimizer over the model's trainable parameters.

    head: the part of the model that makes logits; needed where the config treats it otherwise than the rest.
    It is fused, which takes one pass over memory per step.
    As in the code of the patch-size paper every trainable parameter decays, biases and norms too, unless decay_1d is
    False. Parameters whose learning rate is 0 are frozen: no step would move them.
    Each group of parameters says under `part` whether it is of the encoder or of the head. On a CUDA device its
    learning rate lies there as a tensor, so that a recorded step can read it.
    """
    groups = _parameter_groups(model, config, head)
    device = groups[0]["params"][0].device
    for group in groups:
        rate = config.base_rates[group["part"]]
        # A recorded step would keep a Python number for ever, but reads a tensor anew.
        group["lr"] = torch.tensor(rate, device=device) if device.type == "cuda" else rate
    settings: dict[str, Any] = {"lr": groups[0]["lr"], "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, **settings)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, capturable=device.type == "cuda", **settings)


def _parameter_groups(model: nn.Module, config: TrialConfig, head: nn.Module | None) -> list[dict[str, Any]]:
    """One group, in the model's order, unless parts of the model differ in learning rate or decay."""
    of_head: set[nn.Parameter] = set()
    parts_differ = len(set(config.base_rates)) > 1 or len(set(config.schedules)) > 1
    if parts_differ:
        assert head is not None, "the config treats the head otherwise than the rest"
        of_head = set(head.parameters())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        part = HEAD if parameter in of_head else ENCODER
        if config.base_rates[part] == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        decays = config.decay_1d or parameter.ndim > 1
        group = groups.setdefault((part, decays), {"params": [], "part": part})
        group["params"].append(parameter)
        if not decays:
            group["weight_decay"] = 0.0
    if not groups:
        raise ValueError("nothing trains: all that has a learning rate above 0 is frozen by the method")
    return list(groups.values())


def learning_rates(config: TrialConfig, length: Length, step: int, reductions: int = 0) -> tuple[float, float]:
    """Learning rates of encoder and head for `step`, counted from 0.

    A pure function: a resumed trial needs no scheduler state but the reductions, how often a plateau lowered the rate.
    """
    rates = []
    for base, schedule in zip(config.base_rates, config.schedules, strict=True):
        rates.append(_learning_rate(config, schedule, base, length, step, reductions))
    return rates[ENCODER], rates[HEAD]


def _learning_rate(
    config: TrialConfig, schedule: Schedule, base: float, length: Length, step: int, reductions: int
) -> float:
    """One part's learning rate.

    Warm-up rises linearly over warmup_epochs or warmup_steps. step: base x step_gamma^(epoch // step_epochs), torch's
    StepLR, or of steps with step_steps; cosine: half a cosine from base towards min_lr over the rest (Loshchilov &
    Hutter 2017), torch's CosineAnnealingLR, by steps where length or warm-up is given in steps; plateau: torch's
    ReduceLROnPlateau. Epochs and steps of a schedule count from the end of the warm-up that is given in the same unit.
    """
    epoch = step // length.steps_per_epoch
    if base == 0:
        return 0.0
    if epoch < config.warmup_epochs:
        return base * (epoch + 1) / (config.warmup_epochs + 1)
    if step < config.warmup_steps:
        return base * (step + 1) / (config.warmup_steps + 1)
    epochs_done = epoch - config.warmup_epochs
    steps_done = step - config.warmup_steps
    if schedule == "step":
        falls = epochs_done // config.step_epochs
        if config.step_steps is not None:
            falls = steps_done // config.step_steps
        return base * config.step_gamma**falls
    if schedule == "cosine":
        angle = math.pi * epochs_done / (length.epochs - config.warmup_epochs)
        if config.steps is not None or config.warmup_steps:
            angle = math.pi * steps_done / (length.steps - config.warmup_steps)
        return config.min_lr + (base - config.min_lr) * 0.5 * (1 + math.cos(angle))
    if schedule == "plateau":
        return max(config.min_lr, base * config.step_gamma**reductions)
    return base


def is_lowest(config: TrialConfig, reductions: int) -> bool:
    """Whether a plateau cannot lower the learning rates any more; never where min_lr is 0."""
    for base, schedule in zip(config.base_rates, config.schedules, strict=True):
        rate = base * config.step_gamma**reductions
        # Factors of .1 come out a rounding above the number that was meant.
        if schedule == "plateau" and rate > config.min_lr * (1 + 1e-6):
            return False
    return True


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """Set the rates of encoder and head in their parameter groups; in place where a recorded step reads them."""
    for group in optimizer.param_groups:
        rate = rates[group["part"]]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
