"""Classification: one class of several per image, or several labels of which each may hold."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from raypatch.tasks.metrics import ACCURACY, AUC, BALANCED_ACCURACY, MACRO_RECALL, QUADRATIC_KAPPA, is_defined
from raypatch.tasks.protocols import ClassCounts, ClassTask, Label, Metric, Probability
from raypatch.tasks.registry import task_metrics

if TYPE_CHECKING:
    import torch

SMALLEST = float(np.finfo(np.float32).tiny)
"""A probability is taken for at least this, so that a sure mistake has a finite loss."""


class Classification:
    """What all classifications share.

    A task of one's own may start from OneClass or ManyLabels and change parts.
    """

    name = "classification"
    reads: Literal["labels", "masks"] = "labels"
    metrics: tuple[Metric, ...] = (ACCURACY, BALANCED_ACCURACY, AUC)
    default_metric = BALANCED_ACCURACY.name

    def outputs(self, classes: Sequence[str]) -> int:
        return len(classes)

    def score(
        self,
        probability: Probability,
        label: Label,
        loss: float | None = None,
        *,
        final: bool = True,
    ) -> dict[str, float]:
        task = cast(ClassTask, self)
        scores = {"loss": self.log_loss(probability, label) if loss is None else loss}
        for metric in task_metrics(task):
            if final or metric.each_epoch:
                scores[metric.name] = metric.function(probability, label, task)
        return scores

    def log_loss(self, probability: Probability, label: Label) -> float:
        if not is_defined(probability, "log loss"):
            return math.nan
        return float(-np.log(self.likelihood(probability[None], label).clip(max=1)).mean())

    def likelihood(self, probability: NDArray[np.floating], label: Label) -> NDArray[np.float64]:
        raise NotImplementedError

    def brier(self, probability: Probability, label: Label) -> float:
        raise NotImplementedError


class OneClass(Classification):
    """Classes that exclude each other; the probabilities of an image sum to one.

    one_question: of two classes the second is the one that is asked
    for, which is what the AUC is about.
    """

    kinds: tuple[str, ...] = ("binary", "multiclass", "ordinal")
    metrics: tuple[Metric, ...] = (ACCURACY, BALANCED_ACCURACY, AUC, MACRO_RECALL)

    def __init__(self, name: str = "multiclass", *, one_question: bool = False) -> None:
        self.name = name
        self.one_question = one_question
        if one_question:
            self.kinds = ("binary",)

    def blank_labels(self, count: int, outputs: int) -> "torch.Tensor":
        import torch

        return torch.zeros(count, dtype=torch.int64)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Mean cross-entropy, nats per image."""
        from torch.nn import functional as F

        return F.cross_entropy(logits.float(), labels)

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor":
        return logits.float().softmax(dim=1)

    def predicted(self, probability: Probability) -> NDArray[np.int64]:
        """Return the most probable class, (N,), the lowest of equals."""
        # numpy's argmax gives the first, so equal probabilities are no matter of chance.
        most_probable: NDArray[np.int64] = np.argmax(probability, axis=1)
        return most_probable

    def words(self, probability: Probability, classes: Sequence[str]) -> list[str]:
        return [classes[place] for place in self.predicted(probability)]

    def likelihood(self, probability: NDArray[np.floating], label: Label) -> NDArray[np.float64]:
        """Return the probability of the true class: (M, N)."""
        right = np.take_along_axis(probability.astype(np.float64), label[None, :, None], axis=2)[..., 0]
        return right.clip(SMALLEST)

    def votes(self, probability: NDArray[np.floating]) -> NDArray[np.float64]:
        chosen = np.stack([self.predicted(member) for member in probability])
        # Row c of the unit matrix is a vote for class c.
        ballots: NDArray[np.float64] = np.eye(probability.shape[2])[chosen]
        return ballots

    def confusions(self, probability: Probability, label: Label) -> NDArray[np.int64]:
        """Count images by true (row) and predicted (column) class: (1, C, C), as scikit-learn does."""
        import torch
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        classes = probability.shape[1]
        if not is_defined(probability, "accuracy"):
            return np.zeros((0, classes, classes), np.int64)
        predicted = torch.from_numpy(self.predicted(probability))
        truth = torch.from_numpy(np.asarray(label, np.int64))
        counts: NDArray[np.int64] = multiclass_confusion_matrix(
            predicted, truth, num_classes=classes, validate_args=False
        ).numpy()
        return counts[None]

    def confusion_table(self, probability: Probability, label: Label) -> NDArray[np.int64] | None:
        matrix: NDArray[np.int64] = self.confusions(probability, label)[0]
        return matrix

    def class_counts(self, probability: Probability, label: Label) -> ClassCounts:
        (matrix,) = self.confusions(probability, label)
        return ClassCounts(images=matrix.sum(axis=1), predicted=matrix.sum(axis=0), right=np.diagonal(matrix))

    def confidences(
        self,
        probability: Probability,
        label: Label,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return probability.max(axis=1).astype(np.float64), self.predicted(probability) == label

    def brier(self, probability: Probability, label: Label) -> float:
        """Return half the squared distance of probabilities and truth per image.

        For two classes this is the mean squared error of the probability of class 1.
        """
        truth = np.eye(probability.shape[1])[label]
        return float(((probability.astype(np.float64) - truth) ** 2).sum(axis=1).mean() / 2)

    def one_versus_rest(
        self,
        probability: Probability,
        label: Label,
    ) -> tuple[Probability, NDArray[np.bool_]]:
        truth = label[:, None] == np.arange(probability.shape[1])
        return (probability[:, 1:], truth[:, 1:]) if self.one_question else (probability, truth)

    def strata(self, label: Label) -> NDArray[np.int64]:
        """Return the class."""
        return np.asarray(label, np.int64)


class Ordinal(OneClass):
    """Classes in an order, such as grades of a disease: how far a miss is off counts too."""

    metrics: tuple[Metric, ...] = (ACCURACY, BALANCED_ACCURACY, AUC, QUADRATIC_KAPPA, MACRO_RECALL)


class ManyLabels(Classification):
    """Labels of which any number may hold; each has a probability of its own,
    and scores are means over them.
    """

    name = "multilabel"
    kinds: tuple[str, ...] = ("multilabel",)
    threshold = 0.5

    def blank_labels(self, count: int, outputs: int) -> "torch.Tensor":
        import torch

        return torch.zeros((count, outputs), dtype=torch.int64)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Mean binary cross-entropy over images and labels, nats."""
        from torch.nn import functional as F

        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor":
        return logits.float().sigmoid()

    def predicted(self, probability: Probability) -> NDArray[np.int64]:
        """Return 1 for each label above the threshold, (N, C)."""
        return (probability > self.threshold).astype(np.int64)

    def words(self, probability: Probability, classes: Sequence[str]) -> list[str]:
        """Return the labels that were found, joined by semicolons."""
        found = []
        for row in self.predicted(probability):
            found.append("; ".join(label for label, holds in zip(classes, row, strict=True) if holds))
        return found

    def likelihood(self, probability: NDArray[np.floating], label: Label) -> NDArray[np.float64]:
        """Return the probability that each label is as it is: (M, N x C)."""
        wide = probability.astype(np.float64)
        right = np.where(label.astype(bool), wide, 1 - wide)
        return right.clip(SMALLEST).reshape(len(probability), -1)

    def votes(self, probability: NDArray[np.floating]) -> NDArray[np.float64]:
        return self.predicted(probability).astype(np.float64)

    def confusions(self, probability: Probability, label: Label) -> NDArray[np.int64]:
        """Count images by true (row) and predicted (column) presence of each label: (C, 2, 2)."""
        import torch
        from torchmetrics.functional.classification import multilabel_confusion_matrix

        labels = probability.shape[1]
        if not is_defined(probability, "accuracy"):
            return np.zeros((0, labels, labels), np.int64)
        predicted = torch.from_numpy(self.predicted(probability))
        truth = torch.from_numpy(np.asarray(label, np.int64))
        counts: NDArray[np.int64] = multilabel_confusion_matrix(
            predicted, truth, num_labels=labels, validate_args=False
        ).numpy()
        return counts

    def confusion_table(self, probability: Probability, label: Label) -> NDArray[np.int64] | None:
        return None

    def class_counts(self, probability: Probability, label: Label) -> ClassCounts:
        matrices = self.confusions(probability, label)
        return ClassCounts(
            images=matrices[:, 1].sum(axis=1),
            predicted=matrices[:, :, 1].sum(axis=1),
            right=matrices[:, 1, 1],
        )

    def confidences(
        self,
        probability: Probability,
        label: Label,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        flat = probability.ravel().astype(np.float64)
        right = self.predicted(probability).ravel() == label.ravel()
        return np.maximum(flat, 1 - flat), right

    def brier(self, probability: Probability, label: Label) -> float:
        """Return the mean squared error over images and labels."""
        return float(((probability.astype(np.float64) - label) ** 2).mean())

    def one_versus_rest(
        self,
        probability: Probability,
        label: Label,
    ) -> tuple[Probability, NDArray[np.bool_]]:
        return probability, label.astype(bool)

    def strata(self, label: Label) -> NDArray[np.int64]:
        """Return one class for all images: labels overlap."""
        return np.zeros(len(label), np.int64)


BINARY = OneClass("binary", one_question=True)
MULTICLASS = OneClass("multiclass")
ORDINAL = Ordinal("ordinal")
MULTILABEL = ManyLabels()
