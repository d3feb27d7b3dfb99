"""What a task and a metric are: the protocols that members of this seam keep,
from here or from another package.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the analysis reads tasks where torch need not be loaded
    import torch

Probability = NDArray[np.floating]
"""(N, C): one probability per image and class, or per image and label.

Of a task on masks it is what is stored in place of probabilities, see `MaskTask.count`.
"""

Label = NDArray[np.integer]
"""(N,) class numbers, or (N, C) of 0 and 1; of a task on masks (N, C) pixels of each class."""

Masks = NDArray[np.uint8]
"""(N, H, W): a class number for each pixel, 0 the background."""

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
    # Any: a metric asks of its own tasks what others do not have.
    function: Callable[[Probability, Label, Any], float]
    weighted: Callable[[Probability, Label, Any, Weights], NDArray[np.float64]] | None = None
    lower_is_better: bool = False
    bounds: tuple[float, float] | None = (0.0, 1.0)
    each_epoch: bool = True
    always_shown: bool = True
    tasks: tuple[str, ...] = ("binary", "multiclass", "ordinal", "multilabel")


class Task(Protocol):
    """What is asked of an image: how labels or masks become a loss, logits probabilities,
    and predictions scores.

    A member is a ClassTask, such as the two of `raypatch.tasks.classification` to build on, or a
    MaskTask, such as `raypatch.tasks.segmentation`.

    name: as in files.
    kinds: of a dataset's labels that it reads (binary, multiclass, ordinal: class numbers;
    multilabel: 0 and 1 in a column per label; segmentation: masks).
    reads: whether the truth is a label of each image, or a mask.
    metrics: in the order in which tables show them, without the loss, which every task has.
    default_metric: the name of the one that an answer is about.

    Below, N are images, C classes or labels, M members of an ensemble.
    """

    name: str
    kinds: tuple[str, ...]
    reads: Literal["labels", "masks"]
    metrics: tuple[Metric, ...]
    default_metric: str

    def outputs(self, classes: Sequence[str]) -> int:
        """Return how many logits a model gives for each image, or for each pixel."""
        ...

    def blank_labels(self, count: int, outputs: int) -> "torch.Tensor":
        """Return `count` labels of the right type, for timing a step on made images; masks of any size."""
        ...

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Return the mean loss of a batch, a scalar that has a gradient:
        logits (N, outputs), labels as loaded; or logits (N, outputs, H, W) and masks (N, H, W).
        """
        ...

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Return probabilities (N, C) float32 of logits (N, outputs), or (N, C, H, W) of those of pixels."""
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

    def strata(self, label: Label) -> NDArray[np.int64]:
        """Return the class (N,) of each image, one for all where they overlap:
        resamples heed how rare each is.
        """
        ...


@runtime_checkable
class MaskTask(Task, Protocol):
    """A task on masks. Its predictions are stored as counts, from which all its scores follow.

    C are the classes without the background.
    """

    def predicted_masks(self, probability: NDArray[np.floating]) -> Masks:
        """Return the class of each pixel, of probabilities (N, C or C + 1, H, W)."""
        ...

    def count(self, predicted: Masks, masks: Masks, classes: int) -> tuple[Probability, Label]:
        """Count the pixels of `classes` classes besides the background in each image.

        Returns (N, C, 2) float32, the pixels that prediction and truth share and those of the
        prediction, and (N, C) int64, those of the truth.
        """
        ...


@runtime_checkable
class ClassTask(Task, Protocol):
    """A task on labels: one answer, or one of each label, for an image."""

    def predicted(self, probability: Probability) -> NDArray[np.int64]:
        """Return what is predicted, in the form of a label."""
        ...

    def words(self, probability: Probability, classes: Sequence[str]) -> list[str]:
        """Return what is predicted for each image, in words for a CSV."""
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
