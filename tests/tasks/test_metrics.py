"""Metrics equal the reference library's, and are NaN with a warning where they are undefined."""

import math
import time
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.functional.classification import multiclass_cohen_kappa, multiclass_recall

from raypatch.tasks import UndefinedMetricWarning, find_metric, find_task
from raypatch.tasks.metrics import macro_auc, quadratic_kappa, recalls


def score(probability, label, task, loss=None):
    return find_task(task).score(probability, label, loss)


def made_split(images, classes, seed, *, rounded=False):
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    probability = rng.dirichlet(np.ones(classes), images) + 0.5 * np.eye(classes)[label]
    probability = (probability / probability.sum(1, keepdims=True)).astype(np.float32)
    return (probability.round(1) if rounded else probability), label


def made_labels(images, labels, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, (images, labels))
    label[0], label[1] = 0, 1
    return (0.6 * rng.random((images, labels)) + 0.4 * label).astype(np.float32), label


@pytest.mark.parametrize("rounded", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize(("images", "classes"), [(10, 2), (200, 2), (50, 5), (400, 8), (2000, 11)])
def test_scores_equal_scikit_learn(images, classes, rounded):
    probability, label = made_split(images, classes, images, rounded=rounded)
    found = score(probability, label, "binary" if classes == 2 else "multiclass")
    predicted = probability.argmax(1)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(label, predicted), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(label, predicted), abs=1e-6)
    truth = np.eye(classes)[label]
    auc = (
        reference.roc_auc_score(label, probability[:, 1])
        if classes == 2
        else reference.roc_auc_score(truth, probability, average="macro")
    )
    assert found["auc"] == pytest.approx(auc, abs=1e-6)
    if not rounded:
        assert found["loss"] == pytest.approx(-np.log(probability[np.arange(images), label]).mean(), rel=1e-5)


def test_multilabel_scores_are_means_over_labels():
    probability, label = made_labels(300, 14, 0)
    found = score(probability, label, "multilabel")
    predicted = probability > 0.5
    columns = range(14)
    assert found["accuracy"] == pytest.approx((predicted == label).mean())
    assert found["balanced_accuracy"] == pytest.approx(
        np.mean([reference.balanced_accuracy_score(label[:, k], predicted[:, k]) for k in columns]), abs=1e-6
    )
    assert found["auc"] == pytest.approx(reference.roc_auc_score(label, probability, average="macro"), abs=1e-6)
    wanted = [reference.log_loss(label[:, k], probability[:, k].astype(np.float64)) for k in columns]
    assert found["loss"] == pytest.approx(np.mean(wanted), rel=1e-5)


def test_ordinal_is_scored_as_classes_and_by_kappa():
    probability, label = made_split(120, 5, 3)
    found = score(probability, label, "ordinal")
    assert found.pop("quadratic_kappa") > 0
    assert found == score(probability, label, "multiclass")


def test_given_loss_is_kept():
    probability, label = made_split(20, 3, 0)
    assert score(probability, label, "multiclass", loss=1.25)["loss"] == 1.25


def test_missing_class_leaves_auc_undefined_and_balanced_accuracy_to_the_others():
    probability, label = made_split(60, 4, 1)
    label = np.where(label == 2, 0, label)
    with pytest.warns(UndefinedMetricWarning, match="class 2 has no image"):
        found = score(probability, label, "multiclass")
    assert math.isnan(found["auc"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = reference.balanced_accuracy_score(label, probability.argmax(1))
    assert found["balanced_accuracy"] == pytest.approx(wanted)
    assert found["accuracy"] == pytest.approx((probability.argmax(1) == label).mean())


@pytest.mark.parametrize("only", [0, 1])
def test_single_class_leaves_binary_auc_undefined(only):
    probability, _ = made_split(30, 2, 2)
    label = np.full(30, only)
    with pytest.warns(UndefinedMetricWarning, match="class 1 has no image or all of the 30 images"):
        found = score(probability, label, "binary")
    assert math.isnan(found["auc"])
    assert found["balanced_accuracy"] == pytest.approx((probability.argmax(1) == only).mean())


def test_label_without_positives_leaves_multilabel_auc_undefined():
    probability, label = made_labels(40, 3, 4)
    label[:, 1] = 0
    with pytest.warns(UndefinedMetricWarning, match="class 1 "):
        assert math.isnan(macro_auc(probability, label, find_task("multilabel")))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_nan_probability_leaves_everything_undefined(task):
    probability, label = made_split(30, 2, 2) if task == "binary" else made_labels(30, 2, 2)
    probability[3, 1] = math.nan
    with pytest.warns(UndefinedMetricWarning, match="a probability is NaN"):
        found = score(probability, label, task)
    assert all(math.isnan(value) for value in found.values())


def test_no_image_leaves_everything_undefined():
    with pytest.warns(UndefinedMetricWarning, match="no image"):
        found = score(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), "multiclass")
    assert all(math.isnan(value) for value in found.values())


def test_probability_just_above_one_is_not_taken_for_a_logit():
    probability, label = made_split(50, 2, 5)
    wide = probability.astype(np.float64) * 1e-9
    wide[0, 0] = np.nextafter(1, 2)
    wide[:, 1] = probability[:, 1] * 1e-9
    wide[0, 1] = np.nextafter(1, 2)
    wanted = reference.roc_auc_score(label, wide[:, 1])
    assert macro_auc(wide, label, find_task("binary")) == pytest.approx(wanted, abs=1e-6)


def test_wrong_certainty_has_a_finite_loss():
    assert 80 < find_task("binary").log_loss(np.array([[1.0, 0.0]]), np.array([1])) < 100


def test_confusion_matrix_and_recalls_equal_scikit_learn():
    probability, label = made_split(90, 4, 6)
    label = np.where(label == 3, 1, label)
    (matrix,) = find_task("multiclass").confusions(probability, label)
    np.testing.assert_array_equal(matrix, reference.confusion_matrix(label, probability.argmax(1), labels=np.arange(4)))
    (found,) = recalls(matrix[None])
    assert math.isnan(found[3])
    np.testing.assert_allclose(
        found[:3],
        reference.recall_score(label, probability.argmax(1), average=None, zero_division=np.nan)[:3],
    )


def test_small_split_is_scored_in_milliseconds():
    probability, label = made_split(400, 5, 7)
    score(probability, label, "multiclass")
    start = time.perf_counter()
    for _ in range(20):
        score(probability, label, "multiclass")
    assert (time.perf_counter() - start) / 20 < 0.02


def test_large_split_is_scored_in_seconds():
    probability, label = made_split(50_000, 11, 8)
    start = time.perf_counter()
    assert score(probability, label, "multiclass")["auc"] > 0.5
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("rare", [False, True], ids=["random", "one class never predicted, one never there"])
def test_kappa_and_macro_recall_equal_the_references(classes, rare):
    probability, label = made_split(300, classes, classes)
    if rare:
        probability[:, 0] = 0
        label[label == classes - 1] = 0
    task = find_task("ordinal")
    found = {name: find_metric(name).function(probability, label, task) for name in ("quadratic_kappa", "macro_recall")}
    predicted = torch.from_numpy(probability.argmax(1))
    truth = torch.from_numpy(label)
    kappa = multiclass_cohen_kappa(predicted, truth, num_classes=classes, weights="quadratic")
    recall = multiclass_recall(predicted, truth, num_classes=classes, average="macro")
    assert found["quadratic_kappa"] == pytest.approx(float(kappa), abs=1e-6)
    assert found["quadratic_kappa"] == pytest.approx(
        reference.cohen_kappa_score(label, probability.argmax(1), weights="quadratic"), abs=1e-9
    )
    assert found["macro_recall"] == pytest.approx(float(recall), abs=1e-6)


def test_kappa_of_one_class_alone_is_undefined():
    probability, label = np.tile(np.float32([0.9, 0.1]), (4, 1)), np.zeros(4, int)
    with pytest.warns(UndefinedMetricWarning, match="quadratic kappa"):
        assert math.isnan(quadratic_kappa(probability, label, find_task("ordinal")))


@pytest.mark.parametrize("name", ["quadratic_kappa", "macro_recall"])
def test_resampled_kappa_and_recall_equal_those_of_the_drawn_images(name):
    probability, label = made_split(60, 4, 1)
    task, metric = find_task("ordinal"), find_metric(name)
    counts = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=20).T.astype(np.float32)
    counts[:4] = np.maximum(counts[:4], 1)  # every class in every resample
    fast = metric.weighted(probability, label, task, counts)
    for resample, drawn in enumerate(counts.T.astype(int)):
        images = np.repeat(np.arange(60), drawn)
        assert fast[resample] == pytest.approx(metric.function(probability[images], label[images], task), abs=1e-5)
