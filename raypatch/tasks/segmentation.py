"""Segmentation: the class of each pixel, the background being one."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks.overlap import DICE, IOU, POOLED_DICE, POOLED_IOU
from raypatch.tasks.protocols import Label, Masks, Metric, Probability
from raypatch.tasks.registry import task_metrics

if TYPE_CHECKING:
    import torch


class Segmentation:
    """One class for each pixel. With two classes there is one logit, which asks for the second; else one for each."""

    name = "segmentation"
    kinds: tuple[str, ...] = ("segmentation",)
    reads: Literal["labels", "masks"] = "masks"
    metrics: tuple[Metric, ...] = (DICE, IOU, POOLED_DICE, POOLED_IOU)
    default_metric = DICE.name
    threshold = 0.5

    def outputs(self, classes: Sequence[str]) -> int:
        return 1 if len(classes) == 2 else len(classes)

    def blank_labels(self, count: int, outputs: int) -> "torch.Tensor":
        import torch

        return torch.zeros((count, 1, 1), dtype=torch.uint8)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Mean cross-entropy over the pixels, nats; with two classes binary cross-entropy, which is the same."""
        from torch.nn import functional as F

        if logits.shape[1] == 1:
            return F.binary_cross_entropy_with_logits(logits[:, 0].float(), labels.float())
        return F.cross_entropy(logits.float(), labels.long())

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Return (N, 1, H, W), of the second of two classes, or (N, C + 1, H, W), of all."""
        return logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(dim=1)

    def predicted_masks(self, probability: NDArray[np.floating]) -> Masks:
        """Return the most probable class of each pixel, the lowest of equals."""
        if probability.shape[1] == 1:
            found: Masks = (probability[:, 0] > self.threshold).astype(np.uint8)
            return found
        most_probable: Masks = np.argmax(probability, axis=1).astype(np.uint8)
        return most_probable

    def count(self, predicted: Masks, masks: Masks, classes: int) -> tuple[Probability, Label]:
        counts = np.zeros((len(masks), classes, 2), np.float32)
        truth = np.zeros((len(masks), classes), np.int64)
        for place in range(classes):
            found, there = predicted == place + 1, masks == place + 1
            counts[:, place, 0] = (found & there).sum(axis=(1, 2))
            counts[:, place, 1] = found.sum(axis=(1, 2))
            truth[:, place] = there.sum(axis=(1, 2))
        return counts, truth

    def score(
        self,
        probability: Probability,
        label: Label,
        loss: float | None = None,
        *,
        final: bool = True,
    ) -> dict[str, float]:
        """Return the scores of counts, as `count` gives them; the loss is not known from these, and NaN."""
        scores = {"loss": math.nan if loss is None else loss}
        for metric in task_metrics(self):
            if final or metric.each_epoch:
                scores[metric.name] = metric.function(probability, label, self)
        return scores

    def strata(self, label: Label) -> NDArray[np.int64]:
        """Return one class for all images: a mask has pixels of several."""
        return np.zeros(len(label), np.int64)


SEGMENTATION = Segmentation()
