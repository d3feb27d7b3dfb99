"""Nearest neighbours: equal to scikit-learn's, ties to the lowest label, shares of votes as probabilities."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import raypatch.models.neighbours
from raypatch.config import TrialConfig, make_config
from raypatch.models.neighbours import NearestNeighbours
from raypatch.tasks import find_task


def _probabilities(train: np.ndarray, labels: np.ndarray, new: np.ndarray, outputs: int, **fields: Any) -> np.ndarray:
    config = TrialConfig.model_validate({"dataset": "phantom2d", "method": "knn", **fields})
    head = NearestNeighbours(config)
    head.remember(torch.from_numpy(train), torch.from_numpy(labels), outputs)
    task = find_task("multilabel" if labels.ndim == 2 else "multiclass")
    return task.probabilities(head(torch.from_numpy(new)).float()).numpy()


def _made(classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    train = random.normal(size=(150, 16)).astype(np.float32)
    new = random.normal(size=(70, 16)).astype(np.float32)
    return train, random.integers(0, classes, 150), new


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 11, 150])
def test_it_equals_scikit_learn(distance: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raypatch.models.neighbours, "DISTANCES_AT_ONCE", 1000)  # several blocks
    train, labels, new = _made()
    reference = KNeighborsClassifier(k, metric=distance, algorithm="brute").fit(train, labels)
    found = _probabilities(train, labels, new, 4, k=k, distance=distance)
    assert found == pytest.approx(reference.predict_proba(new), abs=1e-6)
    assert np.array_equal(find_task("multiclass").predicted(found), reference.predict(new))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_weighted_vote_equals_scikit_learn(distance: str) -> None:
    def weigh(away: np.ndarray) -> np.ndarray:
        similarity = 1 - away if distance == "cosine" else -away
        return np.exp(similarity / 0.5)

    train, labels, new = _made()
    reference = KNeighborsClassifier(20, metric=distance, algorithm="brute", weights=weigh).fit(train, labels)
    found = _probabilities(train, labels, new, 4, k=20, distance=distance, vote="weighted", vote_temperature=0.5)
    assert found == pytest.approx(reference.predict_proba(new), abs=1e-6)


def test_several_labels_equal_scikit_learn() -> None:
    train, _, new = _made()
    labels = np.random.default_rng(1).integers(0, 2, (150, 3))
    reference = KNeighborsClassifier(10, algorithm="brute").fit(train, labels)
    found = _probabilities(train, labels, new, 3, k=10)
    shares = np.stack([each[:, 1] for each in reference.predict_proba(new)], axis=1)
    assert found == pytest.approx(shares, abs=1e-6)
    # Half of the votes is no majority, there as here.
    assert (shares == 0.5).any()
    assert np.array_equal(find_task("multilabel").predicted(found), reference.predict(new))


def test_ties_go_to_the_lowest_label_and_the_first_image() -> None:
    train = np.array([[0.0], [0.0], [0.0], [5.0]], np.float32)
    labels = np.array([2, 1, 0, 0])
    found = _probabilities(train, labels, np.array([[0.0]], np.float32), 3, k=2)
    # Of three images at the same place the first two vote, and each for its own class.
    assert found == pytest.approx(np.array([[0, 0.5, 0.5]]), abs=1e-6)
    assert find_task("multiclass").predicted(found).tolist() == [1]


def test_more_neighbours_than_images_are_refused() -> None:
    from raypatch.data.catalog import dataset_info
    from raypatch.methods import check_fields

    info = dataset_info("breastmnist")
    values = {"dataset": "breastmnist", "method": "knn", "k": 600}
    with pytest.raises(ValueError, match="k=600 is more than the 546 training images of breastmnist"):
        check_fields(make_config(values), info)
    with pytest.raises(ValueError, match="more than the 55 training images"):
        check_fields(make_config(values | {"k": 56, "train_fraction": 0.1}), info)
    check_fields(make_config(values | {"k": 546}), info)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 5}, "k=5 goes with method=knn, not with finetune; leave it out"),
        ({"distance": "cosine", "method": "linear_probe"}, "distance=cosine goes with method=knn"),
        ({"vote": "weighted"}, "vote=weighted goes with method=knn"),
        ({"method": "knn", "head": "mlp"}, "head=mlp goes with a method that trains one, not with knn"),
        ({"method": "knn", "vote_temperature": 0.5}, "vote_temperature=0.5 goes with vote=weighted"),
        ({"method": "knn", "k": 0}, "k: .*greater than or equal to 1"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config({"dataset": "derma", "patch_size": 4} | fields)
