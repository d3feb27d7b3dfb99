"""Patients stay whole, classes are as even as they allow, and a given split is kept, told and mended."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from raypatch.data.inputs.scan import ImageFiles
from raypatch.data.layout.npz import DataError
from raypatch.data.pack.options import PackOptions
from raypatch.data.pack.sources.listing import Item
from raypatch.data.pack.split.deal import deal_images
from raypatch.data.pack.split.splits import describe_splits, make_splits

SHARES = (0.7, 0.1, 0.2)


def items_of(patients: Sequence[str | None], splits: Sequence[str | None] | None = None) -> list[Item]:
    items = []
    for number, patient in enumerate(patients):
        split = splits[number] if splits else None
        items.append(Item(ImageFiles(str(number), (Path(str(number)),)), "a", patient, split))
    return items


def random_set(seed: int, images: int = 400, patients: int = 90) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, images, p=[0.6, 0.3, 0.1])
    return np.eye(3, dtype=np.int64)[labels], generator.integers(0, patients, images)


@pytest.mark.parametrize("seed", range(5))
def test_patients_stay_whole_and_classes_even(seed: int) -> None:
    classes, groups = random_set(seed)
    part = deal_images(classes, groups, SHARES, seed)
    for group in np.unique(groups):
        assert len(np.unique(part[groups == group])) == 1
    for number, share in enumerate(SHARES):
        of_class = classes[part == number].sum(axis=0) / classes.sum(axis=0)
        assert of_class == pytest.approx(share, abs=0.08)


def test_images_of_nobody_are_dealt_exactly() -> None:
    classes = np.eye(2, dtype=np.int64)[np.repeat([0, 1], [300, 100])]
    part = deal_images(classes, np.arange(400), SHARES, 0)
    assert [classes[part == number].sum(axis=0).tolist() for number in range(3)] == [[210, 70], [30, 10], [60, 20]]


def test_the_seed_decides() -> None:
    classes, groups = random_set(0)
    assert np.array_equal(deal_images(classes, groups, SHARES, 1), deal_images(classes, groups, SHARES, 1))
    assert not np.array_equal(deal_images(classes, groups, SHARES, 1), deal_images(classes, groups, SHARES, 2))


def test_several_labels_are_stratified_together() -> None:
    labels = (np.random.default_rng(0).random((500, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(np.int64)
    part = deal_images(labels, np.arange(500), SHARES, 0)
    for number, share in enumerate(SHARES):
        assert labels[part == number].sum(axis=0) / labels.sum(axis=0) == pytest.approx(share, abs=0.05)


def test_folds_are_each_once_a_test() -> None:
    classes, groups = random_set(0)
    splits = make_splits(items_of([None] * 400), classes, list(map(str, groups)), PackOptions(folds=5))
    assert splits.fold is not None
    assert np.bincount(splits.fold).tolist() == pytest.approx([80] * 5, abs=6)
    assert np.array_equal(splits.part == 2, splits.fold == 0)
    assert np.array_equal(splits.part == 1, splits.fold == 1)
    for group in np.unique(groups):
        assert len(np.unique(splits.fold[groups == group])) == 1


def test_a_tiny_class_is_in_train() -> None:
    classes = np.zeros((40, 2), dtype=np.int64)
    classes[:, 0], classes[7] = 1, [0, 1]
    for seed in range(6):
        part = make_splits(items_of([None] * 40), classes, None, PackOptions(seed=seed)).part
        assert part[7] == 0


def test_a_given_split_with_torn_patients_is_told_and_mended() -> None:
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    patients = ["p", "p", "q", "r", "s", "t", "u", "v", "p", "w"]
    classes = np.ones((10, 1), dtype=np.int64)
    items = items_of(patients, splits)
    kept = make_splits(items, classes, patients, PackOptions())
    assert kept.part.tolist() == [0] * 6 + [1] * 2 + [2] * 2
    assert any("1 patient is in more than one split: p" in note for note in kept.notes)
    mended = make_splits(items, classes, patients, PackOptions(split="mended"))
    assert mended.part.tolist() == [0] * 6 + [1] * 2 + [0, 2]
    assert any("1 image of 1 patient was moved" in note for note in mended.notes)


def test_what_a_source_does_not_say_is_not_asked_of_it() -> None:
    classes = np.ones((10, 1), dtype=np.int64)
    with pytest.raises(DataError, match="names no patients"):
        make_splits(items_of([None] * 10), classes, None, PackOptions(split="patient"))
    with pytest.raises(DataError, match="has no train, val and test"):
        make_splits(items_of([None] * 10), classes, None, PackOptions(split="given"))
    with pytest.raises(DataError, match="no image is left for val: there is 1 patient to deal"):
        make_splits(items_of(["p"] * 10), classes, ["p"] * 10, PackOptions())
    with pytest.raises(DataError, match="2 images have no split"):
        make_splits(items_of([None] * 4, ["train", None, "test", None]), classes[:4], None, PackOptions())


def test_images_and_patients_are_told_by_split_and_class() -> None:
    part = np.array([0, 0, 0, 1, 2])
    classes = np.eye(2, dtype=np.int64)[[0, 0, 1, 1, 0]]
    lines = describe_splits(part, classes, ["well", "ill"], ["p", "p", "q", "r", "s"])
    words = [line.split() for line in lines]
    assert ["images", "3", "1", "1", "5"] in words
    assert ["patients", "2", "1", "1", "4"] in words
    assert ["well", "2", "(1)", "0", "(0)", "1", "(1)", "3", "(2)"] in words
    assert "well in train (1)" in lines[-1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 2}, "--folds 2 must be at least 3"),
        ({"shares": (0.5, 0.2, 0.2)}, "whose sum is 1"),
        ({"size": 2}, "--size 2 must be"),
        ({"uncertain": "maybe"}, "--uncertain maybe"),
    ],
)
def test_wrong_options_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackOptions(**values)


def test_a_split_that_its_share_leaves_empty_gets_what_train_can_spare() -> None:
    classes = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    splits = make_splits(items_of([None] * 4), classes, None, PackOptions())
    assert sorted(splits.part.tolist()) == [0, 0, 1, 2]
    assert classes[splits.part == 0].any(axis=0).all()
    assert "val was empty: 1 image was moved there from train" in splits.notes
    with pytest.raises(DataError, match=r"there are 2 images to deal, and train keeps some of each class; give more$"):
        make_splits(items_of([None] * 2), np.eye(2, dtype=np.int64), None, PackOptions())
