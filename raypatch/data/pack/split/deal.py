"""Images dealt to train, val and test, or to folds: patients whole, classes as evenly as they allow."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal(counts: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Deal groups to parts: return the part of each, (G,).

    counts: (G, C), images of each class in each group. shares: (S,), what of all images each part
    should have. The greedy rule of scikit-learn's StratifiedGroupKFold, which knows neither parts
    of different size nor several labels per image: groups in random order, those of the most
    uneven classes first; each goes where the classes are then filled most evenly, measured by the
    standard deviation over the parts of the share that each has of what it should have.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    order = generator.permutation(len(counts))
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    totals = np.maximum(counts.sum(axis=0), 1)
    wanted = np.array(shares, dtype=np.float64)[:, None]
    filled = np.zeros((len(shares), counts.shape[1]))
    parts = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        added = counts[group] / totals / wanted  # (S, C): by how much each part would be fuller
        sums = filled.sum(axis=0) + added
        squares = (filled**2).sum(axis=0) + 2 * filled * added + added**2
        variance = squares / len(shares) - (sums / len(shares)) ** 2
        # Rounding may leave a variance a little below 0.
        unevenness = np.sqrt(variance.clip(0)).mean(axis=1)
        part = int(unevenness.argmin())
        filled[part] += added[part]
        parts[group] = part
    return parts


def deal_images(
    classes: NDArray[np.int64], groups: NDArray[np.int64], shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Deal images to parts: return the part of each, (N,).

    classes: (N, C) of 0 and 1. groups: (N,), equal for images that stay together.
    """
    _, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(members.max()) + 1, classes.shape[1]), dtype=np.int64)
    np.add.at(counts, members, classes)
    return deal(counts, shares, seed)[members]
