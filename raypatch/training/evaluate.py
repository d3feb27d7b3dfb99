"""Logits and scores of a model over a whole split."""

import math

import torch
from torch import nn

from raypatch.data.augment import normalize, to_float
from raypatch.models.memory import evaluation_batch
from raypatch.results import Scores
from raypatch.runtime import Precision
from raypatch.tasks import Task


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: torch.Tensor,
    *,
    device: torch.device,
    tokens: int,
    mean: torch.Tensor,
    std: torch.Tensor,
    precision: Precision,
) -> torch.Tensor:
    """Logits (N, C) float32 on the device of uint8 images (N, C, *spatial), batch by batch.

    tokens: per image. mean, std: (3,) on the device.
    """
    model.eval()
    logits = []
    for batch in images.split(evaluation_batch(tokens, math.prod(images.shape[2:]))):
        inputs = normalize(to_float(batch.to(device, non_blocking=True)), mean, std)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits.append(model(inputs).float())
        del inputs  # or they would lie beside the next batch's
    return torch.cat(logits)


def score_logits(logits: torch.Tensor, labels: torch.Tensor, task: Task, *, final: bool) -> Scores:
    """Loss and metrics of one split; final: with those that are computed once, at the end of a trial."""
    loss = task.loss(logits, labels.to(logits.device)).item()
    probability = task.probabilities(logits).cpu().numpy()
    return task.score(probability, labels.cpu().numpy(), loss, final=final)
