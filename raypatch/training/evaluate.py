"""Logits, probabilities and loss of a model over a whole split."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from raypatch.data.augment import normalize, to_float
from raypatch.data.catalog import Task
from raypatch.models.memory import evaluation_batch
from raypatch.results import Scores
from raypatch.runtime import Precision
from raypatch.tasks import metrics


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
    """Mean loss: binary cross-entropy over all labels of a multi-label task, else cross-entropy over classes, nats."""
    if task == "multilabel":
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())
    return F.cross_entropy(logits.float(), labels)


def probabilities(logits: torch.Tensor, task: Task) -> torch.Tensor:
    """Probabilities (N, C) float32: independent per label in a multi-label task, else summing to one."""
    return logits.float().sigmoid() if task == "multilabel" else logits.float().softmax(dim=1)


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


def score_logits(logits: torch.Tensor, labels: torch.Tensor, task: Task) -> Scores:
    """Loss and metrics of one split."""
    loss = classification_loss(logits, labels.to(logits.device), task).item()
    return metrics.score(probabilities(logits, task).cpu().numpy(), labels.cpu().numpy(), task, loss)
