"""From images to patients: one prediction for each, the mean of its images' probabilities."""

from dataclasses import dataclass

import numpy as np

from raypatch.analysis.statistics.stacks import Stack


@dataclass(frozen=True)
class PatientStack:
    """Predictions by patient. stack: of those whose images share one label. mixed: how many patients' do not."""

    stack: Stack
    mixed: int


def by_patient(stack: Stack) -> PatientStack | None:
    """Return one prediction per patient, the mean probability of the images; None where it is not known who is who.

    None for masks, too: each is of an image. A patient whose images have different labels, such as
    two kinds of lesion, has no label of its own and is left out; `mixed` counts these.
    """
    if stack.group is None or stack.probability.ndim == 4:
        return None
    _, place = np.unique(stack.group, return_inverse=True)
    patients = int(place.max()) + 1
    images = np.bincount(place, minlength=patients)
    labels = stack.label if stack.label.ndim == 2 else stack.label[:, None]
    lowest = np.full((patients, labels.shape[1]), np.iinfo(np.int64).max)
    highest = np.full((patients, labels.shape[1]), -1)
    np.minimum.at(lowest, place, labels)
    np.maximum.at(highest, place, labels)
    same = (lowest == highest).all(axis=1)
    members, _, classes = stack.probability.shape
    total = np.zeros((members, patients, classes))
    for member, probability in enumerate(stack.probability):
        np.add.at(total[member], place, probability)
    mean = (total / images[:, None])[:, same].astype(np.float32)
    label = lowest[same] if stack.label.ndim == 2 else lowest[same, 0]
    return PatientStack(Stack(np.flatnonzero(same), label, mean), int((~same).sum()))
