"""k nearest neighbours as a head: the training images vote on each new one."""

import torch
from torch import Tensor, nn

from raypatch.config import TrialConfig

DISTANCES_AT_ONCE = 2**24
"""Distances in memory at once, in float64: 128 MiB."""

LEAST_SHARE = 1e-30
"""A share of votes is taken for at least this, so that its logarithm is finite."""


class NearestNeighbours(nn.Module):
    """Features (B, width) -> logits whose probabilities are shares of the k nearest images' votes.

    All distances are computed, in blocks and in float64, so that the neighbours are exact; of
    training images at the same distance the first counts. A plain vote counts one for each
    neighbour. A weighted one counts exp(s / T), s being the cosine, or minus the Euclidean distance
    (Wu et al. 2018, arXiv 1805.01978, with the cosine). Classes that exclude each other: the share of each, so
    that a tie goes to the lowest. Several labels: the share of votes for each, which holds above one half.
    """

    features: Tensor
    votes: Tensor

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        self.k, self.distance = config.k, config.distance
        self.temperature = config.vote_temperature if config.vote == "weighted" else None
        self.several_labels = False

    def remember(self, features: Tensor, labels: Tensor, outputs: int) -> None:
        """Take the training images: features (N, width), labels (N,) or (N, outputs)."""
        self.several_labels = labels.ndim == 2
        votes = labels if self.several_labels else nn.functional.one_hot(labels, outputs)
        self.register_buffer("features", self._comparable(features), persistent=False)
        self.register_buffer("votes", votes.double(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        rows = max(1, DISTANCES_AT_ONCE // len(self.features))
        shares = torch.cat([self._shares(part) for part in features.split(rows)])
        if self.several_labels:
            return torch.logit(shares, eps=1e-15)
        return shares.clamp(min=LEAST_SHARE).log()

    def _shares(self, features: Tensor) -> Tensor:
        """Shares of the votes (B, outputs), float64."""
        away = self._distances(self._comparable(features))
        nearest = _k_smallest(away, self.k)
        weights = torch.ones_like(nearest, dtype=torch.float64)
        if self.temperature is not None:
            # A constant added to all similarities changes no share: minus the distance will do for both.
            weights = torch.softmax(-away.gather(1, nearest) / self.temperature, dim=1)
        votes = self.votes[nearest]  # (B, k, outputs)
        return (votes * weights.unsqueeze(2)).sum(1) / weights.sum(1, keepdim=True)

    def _comparable(self, features: Tensor) -> Tensor:
        wide = features.double()
        return nn.functional.normalize(wide, dim=1) if self.distance == "cosine" else wide

    def _distances(self, features: Tensor) -> Tensor:
        """Distances (B, N); 1 - cosine, or Euclidean."""
        if self.distance == "cosine":
            return 1 - features @ self.features.T
        return torch.cdist(features, self.features, compute_mode="use_mm_for_euclid_dist")


def _k_smallest(values: Tensor, k: int) -> Tensor:
    """Positions (B, k) of the smallest values of each row, of equal ones the first."""
    smallest = values.topk(k, dim=1, largest=False)
    ties = (values <= smallest.values[:, -1:]).sum(1) > k
    positions = smallest.indices
    if ties.any():
        # topk takes any of equal values; sorting all is slow, but only done where it matters.
        positions[ties] = values[ties].sort(dim=1, stable=True).indices[:, :k]
    return positions
