"""Scores of a model over a whole split."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from raypatch.data.batches.resident import ResidentSplit
from raypatch.models.prepared import PreparedModel
from raypatch.results import Scores
from raypatch.tasks import ClassTask, MaskTask, Task
from raypatch.tasks.majority import says_one_class


@dataclass(frozen=True)
class Evaluation:
    """What a model says of a split.

    label, probability: as Predictions stores them. is_finite: whether all logits are numbers. alarm:
    what is wrong with the predictions, None where nothing is.
    """

    scores: Scores
    label: NDArray[np.int64]
    probability: NDArray[np.float32]
    is_finite: bool
    alarm: str | None


DIVERGED = Evaluation({}, np.zeros(0, np.int64), np.zeros((0, 0), np.float32), is_finite=False, alarm=None)


def evaluate(prepared: PreparedModel, split: ResidentSplit, task: Task, *, final: bool) -> Evaluation:
    """Return what a model says of a split; final: with the scores that are computed once, at the end of a trial.

    During a training logits that are no numbers are not scored.
    """
    if isinstance(task, MaskTask):
        return _evaluate_masks(prepared, split, task, final=final)
    logits = prepared.logits(split.images)
    is_finite = bool(logits.isfinite().all())
    if not (is_finite or final):
        return DIVERGED
    scores = score_logits(logits, split.labels, task, final=final)
    return Evaluation(
        scores=scores,
        label=split.labels.cpu().numpy(),
        probability=task.probabilities(logits).cpu().numpy(),
        is_finite=is_finite,
        alarm=find_alarm(logits, split.labels, task, scores),
    )


def _evaluate_masks(prepared: PreparedModel, split: ResidentSplit, task: MaskTask, *, final: bool) -> Evaluation:
    """Evaluate batch by batch: the logits of all pixels of a split may be more than the memory holds."""
    loss_sum, is_finite, start = 0.0, True, 0
    counts, truths = [], []
    for logits in mask_logits(prepared, split.images, split.labels.shape[1]):
        masks = split.labels[start : start + len(logits)].to(logits.device)
        start += len(logits)
        is_finite &= bool(logits.isfinite().all())
        loss_sum += task.loss(logits, masks).item() * len(logits)
        probability = task.probabilities(logits).cpu().numpy()
        # One logit tells two classes apart.
        classes = max(1, logits.shape[1] - 1)
        counted, truth = task.count(task.predicted_masks(probability), masks.cpu().numpy(), classes)
        counts.append(counted)
        truths.append(truth)
    count, label = np.concatenate(counts), np.concatenate(truths).astype(np.int64)
    scores = task.score(count, label, loss_sum / start, final=final)
    finds_nothing = label.any() and not count[..., 1].any()
    return Evaluation(scores, label, count, is_finite, "nothing found in any image" if finds_nothing else None)


def mask_logits(prepared: PreparedModel, images: torch.Tensor, edge: int) -> Iterator[torch.Tensor]:
    """Give the logits (n, outputs, edge, edge) of images, batch by batch, in the size of their masks.

    Whatever size the model sees, its masks are those of the file: so levels of another size are
    measured on the same pixels.
    """
    for logits in prepared.logits_of_batches(images):
        if logits.shape[-1] == edge:
            yield logits
        else:
            yield F.interpolate(logits, size=(edge, edge), mode="bilinear", align_corners=False)


def score_logits(logits: torch.Tensor, labels: torch.Tensor, task: Task, *, final: bool) -> Scores:
    """Loss and metrics of one split; final: with those that are computed once,
    at the end of a trial.
    """
    loss = task.loss(logits, labels.to(logits.device)).item()
    probability = task.probabilities(logits).cpu().numpy()
    return task.score(probability, labels.cpu().numpy(), loss, final=final)


def find_alarm(logits: torch.Tensor, labels: torch.Tensor, task: Task, scores: Scores) -> str | None:
    """Say what is wrong with predictions that are no answer: one class only, or no better than the most frequent one.

    None where nothing is, and for a task without balanced accuracy, whose predictions are no classes.
    """
    if "balanced_accuracy" not in scores or not isinstance(task, ClassTask):
        return None
    truth = labels.cpu().numpy()
    # One class of several, or of each label yes and no.
    answers = len(np.unique(truth)) if truth.ndim == 1 else 2
    if answers == 1:
        return None
    if says_one_class(task.probabilities(logits).cpu().numpy(), truth, task):
        return "one class only"
    # What a model has that says the most frequent class of every image, see raypatch.tasks.majority.
    return "no better than the most frequent class" if scores["balanced_accuracy"] <= 1 / answers else None
