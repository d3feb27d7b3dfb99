"""A share of the training images: stratified, nested, drawn with the seed."""

import numpy as np
from numpy.typing import NDArray


def stratified_subset(labels: NDArray[np.integer], fraction: float, seed: int) -> NDArray[np.int64]:
    """Return sorted positions of a random share of the images.

    labels (N,): the share is taken of each class, at least one image each. labels (N, L) of 0 and 1: of all
    images, and of each label that none of these has the first image that does. For one seed a smaller share lies
    within a larger one.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    everything = np.arange(len(labels))
    groups = [everything]
    if labels.ndim == 1:
        groups = [everything[labels == label] for label in np.unique(labels)]
    chosen = []
    for group in groups:
        size = max(1, round(fraction * len(group)))
        # The beginning of one permutation: a larger share of the same seed begins alike.
        order = generator.permutation(group)
        chosen.append(order[:size])
        if labels.ndim == 2:
            chosen.append(_first_of_each(labels, order))
    # Without repeats: the first image of a label may be in the share already.
    return np.unique(np.concatenate(chosen))


def _first_of_each(labels: NDArray[np.integer], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first image in `order` that has each label; a label that no image has is left out."""
    in_order = labels[order]
    occurring = in_order.any(axis=0)
    # argmax gives the first of equals.
    firsts: NDArray[np.int64] = order[in_order.argmax(axis=0)[occurring]]
    return firsts
