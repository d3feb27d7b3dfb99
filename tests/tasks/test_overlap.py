"""Dice and IoU from counts: equal to the reference libraries on random and degenerate masks."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torchmetrics.functional.segmentation import dice_score

from raypatch.tasks import UndefinedMetricWarning, find_metric, find_task, resample_metric
from raypatch.tasks.overlap import dice_of_images, image_means, iou_of_images

TASK = find_task("segmentation")
NAMES = ("dice", "iou", "pooled_dice", "pooled_iou")


def _masks(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (7, 9, 9)).astype(np.uint8)
    predicted = random.integers(0, classes, (7, 9, 9)).astype(np.uint8)
    truth[0] = 0  # empty in truth
    predicted[1] = 0  # nothing found
    truth[2] = predicted[2] = 0  # neither
    truth[3] = predicted[3] = classes - 1  # all of one class, and found
    return truth, predicted


def _scores(truth: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    return TASK.score(*TASK.count(predicted, truth, classes - 1))  # type: ignore[attr-defined]


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_equal_the_reference_libraries(classes: int) -> None:
    truth, predicted = _masks(classes)
    found = _scores(truth, predicted, classes)
    flat = {"y_true": truth.ravel(), "y_pred": predicted.ravel(), "labels": list(range(1, classes))}
    assert found["pooled_dice"] == pytest.approx(f1_score(**flat, average="macro"))
    assert found["pooled_iou"] == pytest.approx(jaccard_score(**flat, average="macro"))
    # torchmetrics gives NaN to a class that is in neither; an image without any counts 1 here.
    each = dice_score(
        torch.from_numpy(predicted).long(),
        torch.from_numpy(truth).long(),
        num_classes=classes,
        include_background=False,
        average="none",
        input_format="index",
    ).numpy()
    assert found["dice"] == pytest.approx(image_means(each.astype(np.float64)).mean())
    ious = []
    for own_truth, own in zip(truth, predicted, strict=True):
        present = sorted({*np.unique(own_truth), *np.unique(own)} - {0})
        ious.append(jaccard_score(own_truth.ravel(), own.ravel(), labels=present, average="macro") if present else 1.0)
    assert found["iou"] == pytest.approx(np.mean(ious))


def test_an_empty_mask_is_right_where_nothing_was_found_and_wrong_else() -> None:
    truth, predicted = _masks(2)
    counts = TASK.count(predicted, truth, 1)  # type: ignore[attr-defined]
    for scores in (dice_of_images(*counts), iou_of_images(*counts)):
        assert scores[:4].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_class_that_an_image_lacks_is_left_out_of_its_mean() -> None:
    truth = np.array([[[1, 1], [0, 0]]], np.uint8)
    assert _scores(truth, truth, 4)["dice"] == 1.0
    predicted = np.array([[[1, 1], [2, 0]]], np.uint8)
    assert _scores(truth, predicted, 4)["dice"] == pytest.approx(0.5), "found where it is not"


def test_pooled_scores_of_nothing_at_all_are_undefined() -> None:
    empty = np.zeros((2, 4, 4), np.uint8)
    with pytest.warns(UndefinedMetricWarning, match="pooled"):
        scores = _scores(empty, empty, 2)
    assert scores["dice"] == 1.0
    assert math.isnan(scores["pooled_iou"])


@pytest.mark.parametrize("name", NAMES)
def test_resamples_equal_images_drawn_one_by_one(name: str) -> None:
    probability, label = TASK.count(*reversed(_masks(4)), 3)  # type: ignore[attr-defined]
    random = np.random.default_rng(1)
    weights = random.multinomial(7, np.full(7, 1 / 7), size=6).T.astype(np.float32)
    metric = find_metric(name)
    fast = resample_metric(metric, probability, label, TASK, weights)
    for place, counts in enumerate(weights.T.astype(int)):
        drawn = np.repeat(np.arange(7), counts)
        assert fast[place] == pytest.approx(metric.function(probability[drawn], label[drawn], TASK))


def test_no_reference_warns_of_what_is_defined() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _scores(*_masks(4), 4)
