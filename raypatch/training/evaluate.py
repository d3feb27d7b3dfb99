"""Scores of a model over a whole split."""

import numpy as np
import torch

from raypatch.results import Scores
from raypatch.tasks import Task
from raypatch.tasks.majority import says_one_class


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
    if "balanced_accuracy" not in scores:
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
