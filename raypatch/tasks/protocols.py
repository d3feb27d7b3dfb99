"""What a task and a metric are: the protocols that members of this seam keep,
from here or from another package.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the analysis reads tasks where torch need not be loaded
    import torch

Probability = NDArray[np.floating]
"""(N, C): one probability per image and class, or per image and label."""

Label = NDArray[np.integer]
"""(N,) class numbers, or (N, C) of 0 and 1."""

Weights = NDArray[np.float32]
"""(N, B): how much each of N images counts in each of B resamples; a column sums to N."""


class UndefinedMetricWarning(RuntimeWarning):
    """A metric is NaN because the labels or the probabilities do not define it."""


class ClassCounts(NamedTuple):
    """Images by class, (C,) each: that have it, that were predicted to have it,
    and of which both holds.
    """

    images: NDArray[np.int64]
    predicted: NDArray[np.int64]
    right: NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """One score of predictions.

    name: in files and on the command line, lower case with _. heading: above a column (bACC).
    label: in a sentence (balanced accuracy).
    function: (probability, label, task) -> score, NaN with an UndefinedMetricWarning where it is
    undefined.
    weighted: the same on resamples of the images, (probability (N, C), label, task, weights (N, B))
    -> (B,); without one it is computed resample by resample, which takes longer.
    bounds: the least and the most it can be, which its interval keeps; None where there are none.
    always_shown: tables show it; else only where a study asks about it.
    each_epoch: training shows it every epoch, so that a trial can be selected by it; else it is
    computed once, at the end.
    tasks: those to which a metric of an installed package is added; a task names its own ones.
    """

    name: str
    heading: str
    label: str
    function: "Callable[[Probability, Label, Task], float]"
    weighted: "Callable[[Probability, Label, Task, Weights], NDArray[np.float64]] | None" = None
    lower_is_better: bool = False
    bounds: tuple[float, float] | None = (0.0, 1.0)
    each_epoch: bool = True
    always_shown: bool = True
    tasks: tuple[str, ...] = ("binary", "multiclass", "ordinal", "multilabel")


class Task(Protocol):
    """What is asked of an image: how labels become a loss, logits probabilities,
    and predictions scores.

    `raypatch.tasks.classification` has two to build on.

    name: as in files.
    kinds: of a dataset's labels that it reads (binary, multiclass, ordinal: class numbers;
    multilabel: 0 and 1 in a column per label).
    metrics: in the order in which tables show them, without the loss, which every task has.
    default_metric: the name of the one that an answer is about.

    Below, N are images, C classes or labels, M members of an ensemble.
    """

    name: str
    kinds: tuple[str, ...]
    metrics: tuple[Metric, ...]
    default_metric: str

    def outputs(self, classes: Sequence[str]) -> int:
        """Return how many logits a model gives for each image."""
        ...

    def blank_labels(self, count: int, outputs: int) -> "torch.Tensor":
        """Return `count` labels of the right shape and type, for timing a step on made images."""
        ...

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Return the mean loss of a batch, a scalar that has a gradient:
        logits (N, outputs), labels as loaded.
        """
        ...

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Return probabilities (N, C) float32 of logits (N, outputs)."""
        ...

    def predicted(self, probability: Probability) -> NDArray[np.int64]:
        """Return what is predicted, in the form of a label."""
        ...

    def words(self, probability: Probability, classes: Sequence[str]) -> list[str]:
        """Return what is predicted for each image, in words for a CSV."""
        ...

    def score(
        self,
        probability: Probability,
        label: Label,
        loss: float | None = None,
        *,
        final: bool = True,
    ) -> dict[str, float]:
        """Return the loss and the metrics by name; `loss` is taken over where the caller has it.

        final: with those that are computed once, at the end of a trial.
        """
        ...

    def log_loss(self, probability: Probability, label: Label) -> float:
        """Return the mean loss in nats per image by the probabilities alone; NaN without images."""
        ...

    def likelihood(self, probability: NDArray[np.floating], label: Label) -> NDArray[np.float64]:
        """Return the probability of what is true: (M, N, C) -> (M, K)
        over the K questions that images ask.
        """
        ...

    def votes(self, probability: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what each member votes for, 0 or 1: (M, N, C) -> (M, N, C)."""
        ...

    def confusions(self, probability: Probability, label: Label) -> NDArray[np.int64]:
        """Count images by true (row) and predicted (column) class,
        one matrix per question: (K, C, C).

        Empty, (0, C, C), where a probability is NaN or there is no
        image: then no prediction is defined.
        """
        ...

    def confusion_table(self, probability: Probability, label: Label) -> NDArray[np.int64] | None:
        """Return the one matrix (C, C) of classes that exclude each other; None where they do not."""
        ...

    def class_counts(self, probability: Probability, label: Label) -> ClassCounts:
        """Count images by class."""
        ...

    def confidences(
        self,
        probability: Probability,
        label: Label,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the probability of each prediction and whether it was right, (K,) both."""
        ...

    def brier(self, probability: Probability, label: Label) -> float:
        """Return the Brier score, 0 (best) to 1."""
        ...

    def one_versus_rest(
        self,
        probability: Probability,
        label: Label,
    ) -> tuple[Probability, NDArray[np.bool_]]:
        """Return scores and truth, (N, K) both, of the K two-class
        questions that the AUC is the mean of.
        """
        ...

    def strata(self, label: Label) -> NDArray[np.int64]:
        """Return the class (N,) of each image, one for all where they overlap:
        resamples heed how rare each is.
        """
        ...
