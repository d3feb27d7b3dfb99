"""Optimizers and learning-rate schedules of a TrialConfig."""

import math

import torch
from torch import nn

from raypatch.config import TrialConfig


def make_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.Optimizer:
    """The config's optimizer over the model's trainable parameters.

    It is fused, which takes one pass over memory per step.
    As in the code of the patch-size paper every trainable parameter decays, biases and norms too.
    On a CUDA device the learning rate lies there as a tensor, so that a recorded step can read it.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = parameters[0].device
    # A recorded step would keep a Python number for ever, but reads a tensor anew.
    lr = torch.tensor(config.lr, device=device) if device.type == "cuda" else config.lr
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=config.weight_decay, fused=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=lr,
        weight_decay=config.weight_decay,
        fused=True,
        capturable=device.type == "cuda",
    )


def learning_rate(config: TrialConfig, epoch: int) -> float:
    """Learning rate of `epoch`, counted from 0:
    a pure function, so a resumed trial needs no scheduler state.

    Warm-up rises linearly over warmup_epochs; step: lr x step_gamma^(epoch // step_epochs), torch's
    StepLR; cosine: half a cosine from lr towards 0 over the remaining epochs (Loshchilov & Hutter
    2017), torch's CosineAnnealingLR. Epochs of the schedule count from the end of the warm-up.
    """
    if epoch < config.warmup_epochs:
        return config.lr * (epoch + 1) / (config.warmup_epochs + 1)
    done = epoch - config.warmup_epochs
    if config.schedule == "step":
        return config.lr * config.step_gamma ** (done // config.step_epochs)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done / (config.epochs - config.warmup_epochs)))
    return config.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set `lr` in every parameter group; in place where a recorded step reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
