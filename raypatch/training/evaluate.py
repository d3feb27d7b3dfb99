"""Scores of a model over a whole split."""

import torch

from raypatch.results import Scores
from raypatch.tasks import Task


def score_logits(logits: torch.Tensor, labels: torch.Tensor, task: Task, *, final: bool) -> Scores:
    """Loss and metrics of one split; final: with those that are computed once,
    at the end of a trial.
    """
    loss = task.loss(logits, labels.to(logits.device)).item()
    probability = task.probabilities(logits).cpu().numpy()
    return task.score(probability, labels.cpu().numpy(), loss, final=final)
