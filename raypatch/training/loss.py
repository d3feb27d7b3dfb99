"""What training minimises: the task's loss, or one that heeds rare classes and hard images."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from raypatch.config import TrialConfig
from raypatch.tasks import Task
from raypatch.tasks.imbalance import check_loss_fields, has_one_class
from raypatch.training.mask_loss import make_mask_loss

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of a batch, a scalar with a gradient, of logits (B, outputs) and labels."""


def make_loss(config: TrialConfig, task: Task, labels: Tensor) -> Loss:
    """The loss that training minimises.

    labels: of the training images used, which class weights go by. Without class weights, label smoothing and focal
    loss it is the task's own. Raises ValueError for a task that does not have them.
    """
    check_loss_fields(config, task)
    if task.reads == "masks":
        return make_mask_loss(config.mask_loss, task)
    if config.class_weights == "none" and config.focal_gamma == 0 and config.label_smoothing == 0:
        return task.loss
    if not has_one_class(task):
        return lambda logits, truth: focal_of_labels(logits, truth, config.focal_gamma)
    weights = balanced_weights(labels) if config.class_weights == "balanced" else None

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        return focal_of_classes(logits, truth, config.focal_gamma, weights=weights, smoothing=config.label_smoothing)

    return loss


def balanced_weights(labels: Tensor) -> Tensor:
    """Weights (C,) of the classes of labels (N,): N / (C x images of the class), scikit-learn's `balanced`.

    An image weighs 1 on average.
    """
    counts = torch.bincount(labels)
    return len(labels) / (len(counts) * counts.float())


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw N images of labels (N,), on the CPU, with replacement and each class equally likely: places, int64 (N,)."""
    return torch.multinomial(balanced_weights(labels)[labels], len(labels), replacement=True, generator=generator)


def focal_of_classes(
    logits: Tensor, labels: Tensor, gamma: float, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Mean over images of weight x (1 - p)^gamma x cross-entropy, p being the probability of the true class.

    Focal loss of Lin et al. 2017; gamma 0 is torch's cross_entropy, but for the mean: it is over images and not over
    weights, so that the parts of a batch add up to the whole.
    """
    each = F.cross_entropy(logits.float(), labels, weights, reduction="none", label_smoothing=smoothing)
    if gamma:
        certainty = logits.float().softmax(dim=1).gather(1, labels[:, None])[:, 0]
        each = _unsureness(certainty, gamma) * each
    return each.mean()


def focal_of_labels(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Mean over images and labels of (1 - p)^gamma x binary cross-entropy, p being the probability of what is true."""
    truth = labels.float()
    each = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
    chance = logits.float().sigmoid()
    certainty = chance * truth + (1 - chance) * (1 - truth)
    return (_unsureness(certainty, gamma) * each).mean()


def _unsureness(certainty: Tensor, gamma: float) -> Tensor:
    # Clamped: the power's slope is infinite at 0 for a gamma below 1.
    return (1 - certainty).clamp(min=1e-8) ** gamma
