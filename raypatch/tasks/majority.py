"""A model that always says the most frequent class: what it scores, and whether another one does the same."""

import numpy as np

from raypatch.tasks.protocols import ClassTask, Label, Metric, Probability


def majority_score(label: Label, task: ClassTask, classes: int, metric: Metric) -> float:
    """Return what `metric` gives to a model that says of every image how frequent each class is in `label`.

    Its prediction is the most frequent class; with several labels per image, of each label what more
    images have. The balanced accuracy of such a model is 1 / classes, with several labels 1 / 2.
    """
    one_per_image = label.ndim == 1
    frequency = np.bincount(label, minlength=classes) / len(label) if one_per_image else label.mean(axis=0)
    same = np.tile(frequency.astype(np.float32), (len(label), 1))
    return metric.function(same, label, task)


def says_one_class(probability: Probability, label: Label, task: ClassTask) -> bool:
    """Whether predictions (N, C) are the same class for every image; with several labels, in each of them."""
    predicted = task.confusions(probability, label).sum(axis=1)  # (questions, classes)
    return bool(len(predicted)) and bool(((predicted > 0).sum(axis=1) == 1).all())
