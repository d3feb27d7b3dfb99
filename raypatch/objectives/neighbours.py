"""How good features are for the labels, without a training: the most similar training images vote."""

from collections.abc import Callable

import torch
from torch import Tensor

from raypatch.config import TrialConfig
from raypatch.data.batches.resident import ResidentSplit
from raypatch.models.neighbours import NearestNeighbours
from raypatch.models.prepared import PreparedModel, evaluation_batch

MOST_NEIGHBOURS = 200

VOTE = {"distance": "cosine", "vote": "weighted", "vote_temperature": 0.1}
"""DINO's vote (arXiv 2104.14294): by the cosine, weighted by exp(s / T); T as released with arXiv 2303.07034."""


@torch.inference_mode()
def neighbour_logits(
    features: Callable[[Tensor], Tensor],
    prepared: PreparedModel,
    train: ResidentSplit,
    asked: ResidentSplit,
    config: TrialConfig,
    *,
    outputs: int,
) -> Tensor:
    """Logits (N, outputs) of the images that are asked about, by the labels of 200 training images or fewer.

    features: of normalised images (B, 3, *spatial).
    """
    voting = config.model_copy(update={**VOTE, "k": min(MOST_NEIGHBOURS, len(train))})
    head = NearestNeighbours(voting)
    known = _features_of(train.images, features, prepared)
    head.remember(known, train.labels.to(prepared.device), outputs)
    logits: Tensor = head(_features_of(asked.images, features, prepared))
    return logits.float()


def _features_of(images: Tensor, features: Callable[[Tensor], Tensor], prepared: PreparedModel) -> Tensor:
    size = evaluation_batch(prepared.facts.tokens, prepared.image_size ** (images.ndim - 2))
    found = []
    for batch in images.split(size):
        inputs = prepared.inputs(batch.to(prepared.device, non_blocking=True))
        with torch.autocast(prepared.device.type, torch.bfloat16, enabled=prepared.precision == "bfloat16"):
            found.append(features(inputs).float())
    return torch.cat(found)
