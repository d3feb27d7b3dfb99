"""How many images a split has of each class, and of how many patients they are."""

import numpy as np
from numpy.typing import NDArray


def count_classes(labels: NDArray[np.integer], classes: int) -> tuple[int, ...]:
    """Return the images of each class, or with each label.

    labels: (N,) class numbers, (N, classes) of 0 and 1, or masks (N, H, W), of which those images count that show
    a class. Nothing for labels of another kind, such as those of a task of one's own.
    """
    if labels.ndim == 3 and labels.dtype == np.uint8:
        return tuple(int((labels == number).any(axis=(1, 2)).sum()) for number in range(classes))
    if labels.dtype.kind not in "iu":
        return ()
    if labels.ndim == 2 and labels.shape[1] == classes:
        return tuple(labels.sum(axis=0).tolist())
    if labels.ndim == 1 and (not len(labels) or 0 <= labels.min() <= labels.max() < classes):
        return tuple(np.bincount(labels, minlength=classes).tolist())
    return ()


def count_patients(patients: NDArray[np.generic] | None) -> int | None:
    """Return how many patients there are among (N,) images; None where the data does not say who is who."""
    return None if patients is None else len(np.unique(patients))
