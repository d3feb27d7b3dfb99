"""A share of the training images: of each class, nested, by seed, and never without a class."""

import numpy as np
import pytest

from raypatch.data.batches.subset import stratified_subset

SHARES = (0.01, 0.05, 0.1, 0.25, 1.0)


def test_subset_takes_its_share_of_each_class():
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    chosen = stratified_subset(labels, 0.1, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [10, 4, 1]
    assert (np.diff(chosen) > 0).all()


def test_subset_follows_the_seed_and_grows_with_the_share():
    labels = np.arange(200) % 3
    small, large = (stratified_subset(labels, fraction, seed=1) for fraction in (0.1, 0.3))
    assert np.array_equal(small, stratified_subset(labels, 0.1, seed=1))
    assert not np.array_equal(small, stratified_subset(labels, 0.1, seed=2))
    assert set(small) < set(large)
    assert np.array_equal(stratified_subset(labels, 1.0, seed=1), np.arange(200))


def test_multilabel_subset_is_drawn_from_all_images():
    labels = np.zeros((50, 4), dtype=np.int64)
    assert len(stratified_subset(labels, 0.2, seed=0)) == 10
    assert len(stratified_subset(labels, 0.001, seed=0)) == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_the_shares_of_a_study_lie_within_each_other_and_leave_no_class_empty(seed, kind):
    random = np.random.default_rng(seed)
    labels = random.choice(7, size=2000, p=[0.66, 0.11, 0.11, 0.05, 0.04, 0.02, 0.01])
    if kind == "labels":
        # As in ChestMNIST: several at a time, the rarest in two of a thousand images.
        labels = (random.random((2000, 5)) < [0.2, 0.1, 0.05, 0.01, 0.002]).astype(np.int64)
    inner = set()
    for share in SHARES:
        chosen = stratified_subset(labels, share, seed)
        assert inner <= set(chosen)
        inner = set(chosen)
        assert (np.diff(chosen) > 0).all()
        assert len(chosen) <= round(share * 2000) + 7
        if kind == "labels":
            assert labels[chosen].any(axis=0).all()
        else:
            assert set(labels[chosen]) == set(range(7))
            expected = np.maximum(1, np.round(share * np.bincount(labels)))
            assert np.bincount(labels[chosen]).tolist() == expected.tolist()


def test_a_label_that_no_image_has_is_left_alone():
    labels = np.zeros((20, 2), dtype=np.int64)
    labels[7, 0] = 1
    assert 7 in stratified_subset(labels, 0.05, seed=0)
