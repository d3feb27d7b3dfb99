"""The two kinds of classification: what is predicted, counted, voted and worded."""

import numpy as np
import pytest
import torch

from raypatch.tasks import find_task

NAMES = ("binary", "multiclass", "ordinal", "multilabel")
CLASS_PROBABILITY = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], np.float32)
CLASS_LABEL = np.array([0, 1, 2, 0])
MANY_PROBABILITY = np.array([[0.9, 0.2], [0.6, 0.7], [0.5, 0.1]], np.float32)
MANY_LABEL = np.array([[1, 0], [0, 1], [1, 0]])


@pytest.mark.parametrize("name", NAMES)
def test_blank_labels_have_a_loss_with_a_gradient(name: str) -> None:
    task = find_task(name)
    logits = torch.zeros(4, task.outputs(("a", "b")), requires_grad=True)
    task.loss(logits, task.blank_labels(4, 2)).backward()
    assert logits.grad is not None
    assert task.probabilities(logits).shape == (4, 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_probabilities(name: str) -> None:
    task, random = find_task(name), torch.Generator().manual_seed(0)
    logits = torch.randn(20, 2, generator=random)
    shape = task.blank_labels(20, 2).shape
    labels = torch.randint(0, 2, shape, generator=random)
    probability = task.probabilities(logits).numpy()
    assert task.log_loss(probability, labels.numpy()) == pytest.approx(task.loss(logits, labels).item(), rel=1e-5)


def test_predictions_are_worded_by_class_and_by_every_label_that_holds() -> None:
    assert find_task("multiclass").words(CLASS_PROBABILITY, ("a", "b", "c")) == ["a", "b", "b", "a"]
    assert find_task("multilabel").words(MANY_PROBABILITY, ("x", "y")) == ["x", "x; y", ""]


def test_images_are_counted_by_class() -> None:
    images, predicted, right = find_task("multiclass").class_counts(CLASS_PROBABILITY, CLASS_LABEL)
    assert (images.tolist(), predicted.tolist(), right.tolist()) == ([2, 1, 1], [2, 2, 0], [2, 1, 0])
    images, predicted, right = find_task("multilabel").class_counts(MANY_PROBABILITY, MANY_LABEL)
    assert (images.tolist(), predicted.tolist(), right.tolist()) == ([2, 1], [2, 1], [1, 1])


def test_only_exclusive_classes_have_one_confusion_table() -> None:
    table = find_task("multiclass").confusion_table(CLASS_PROBABILITY, CLASS_LABEL)
    assert table is not None
    assert table.tolist() == [[2, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert find_task("multilabel").confusion_table(MANY_PROBABILITY, MANY_LABEL) is None


def test_members_vote_with_what_they_predict() -> None:
    votes = find_task("multiclass").votes(np.stack([CLASS_PROBABILITY, CLASS_PROBABILITY]))
    assert votes.shape == (2, 4, 3)
    assert votes[0].argmax(axis=1).tolist() == [0, 1, 1, 0]
    assert find_task("multilabel").votes(MANY_PROBABILITY[None])[0].tolist() == [[1, 0], [1, 1], [0, 0]]


def test_likelihood_is_the_probability_of_the_truth() -> None:
    found = find_task("multiclass").likelihood(CLASS_PROBABILITY[None], CLASS_LABEL)
    assert found == pytest.approx(np.array([[0.7, 0.6, 0.3, 0.4]]))
    found = find_task("multilabel").likelihood(MANY_PROBABILITY[None], MANY_LABEL)
    assert found == pytest.approx(np.array([[0.9, 0.8, 0.4, 0.7, 0.5, 0.9]]))


def test_confidence_and_brier_score() -> None:
    confidence, right = find_task("multilabel").confidences(MANY_PROBABILITY, MANY_LABEL)
    assert confidence == pytest.approx([0.9, 0.8, 0.6, 0.7, 0.5, 0.9])
    assert right.tolist() == [True, True, False, True, False, True]
    confidence, right = find_task("multiclass").confidences(CLASS_PROBABILITY, CLASS_LABEL)
    assert confidence == pytest.approx([0.7, 0.6, 0.5, 0.4])
    assert right.tolist() == [True, True, False, True]
    two = np.array([[0.8, 0.2], [0.4, 0.6]])
    assert find_task("binary").brier(two, np.array([0, 1])) == pytest.approx((0.04 + 0.16) / 2)


def test_a_bootstrap_draws_within_classes_and_over_all_where_labels_overlap() -> None:
    assert find_task("ordinal").strata(CLASS_LABEL).tolist() == [0, 1, 2, 0]
    assert find_task("multilabel").strata(MANY_LABEL).tolist() == [0, 0, 0]


def test_two_classes_ask_one_question_and_more_ask_one_each() -> None:
    scores, truth = find_task("binary").one_versus_rest(CLASS_PROBABILITY[:, :2], CLASS_LABEL % 2)
    assert scores.shape == truth.shape == (4, 1)
    scores, truth = find_task("multiclass").one_versus_rest(CLASS_PROBABILITY, CLASS_LABEL)
    assert scores.shape == truth.shape == (4, 3)
