"""What the training of a segmentation minimises: cross-entropy of the pixels, soft Dice, or both."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from raypatch.tasks import Task

SMOOTHING = 1.0
"""Pixels that are added to both halves of soft Dice, so that an empty mask has a slope."""


def make_mask_loss(kind: Literal["bce", "dice", "both"], task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of logits (B, outputs, H, W) and masks (B, H, W), a scalar. bce is the task's own."""
    if kind == "bce":
        return task.loss
    if kind == "dice":
        return soft_dice_loss
    return lambda logits, masks: task.loss(logits, masks) + soft_dice_loss(logits, masks)


def soft_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return 1 - mean over images and classes, without the background, of their soft Dice.

    It is (2 sum(p y) + 1) / (sum(p) + sum(y) + 1) over the pixels of an image, p the probability and
    y the truth (Milletari et al., V-Net, 2016, without its squares).
    """
    if logits.shape[1] == 1:
        probability, truth = logits.float().sigmoid(), masks.unsqueeze(1).float()
    else:
        probability = logits.float().softmax(dim=1)[:, 1:]
        one_hot = F.one_hot(masks.long(), logits.shape[1])  # (B, H, W, C + 1)
        truth = one_hot[..., 1:].permute(0, 3, 1, 2).float()
    both = (probability * truth).sum(dim=(2, 3))
    each = probability.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    return 1 - torch.mean((2 * both + SMOOTHING) / (each + SMOOTHING))
