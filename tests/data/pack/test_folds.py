"""Folds: each image once in a test, patients whole, indices that no two folds share."""

from pathlib import Path

import numpy as np
import pytest

from raypatch.data.check.twins import find_twins
from raypatch.data.layout.npz import DataError, inspect_npz, read_fold_rows
from raypatch.data.source import load_index, load_labels, load_split, load_texts
from raypatch.storage.own_files import own_file_id

COUNTS = {"train": 6, "val": 3, "test": 3}


def folded(folder: Path, folds: int = 4) -> Path:
    random = np.random.default_rng(0)
    arrays = {}
    start = 0
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(start, start + count)[:, None] % 2
        arrays[f"{split}_patients"] = np.array([f"P{number // 2}" for number in range(start, start + count)])
        arrays[f"{split}_folds"] = np.arange(start, start + count) // 2 % folds
        start += count
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def test_every_image_is_tested_once(tmp_path: Path) -> None:
    path = folded(tmp_path)
    assert inspect_npz(path).folds == 4
    name = own_file_id(path)
    files = {name: path}
    whole = np.concatenate([load_split(name, split, files=files).images for split in COUNTS])
    tested = []
    for fold in range(4):
        seen = []
        for split in COUNTS:
            images = load_split(name, split, fold=fold, files=files).images
            index = load_index(name, split, len(images), fold=fold, files=files)
            assert np.array_equal(images, whole[index])
            assert load_labels(name, split, fold=fold, files=files).tolist() == (index % 2).tolist()
            patients = load_texts(name, "patients", split, fold=fold, files=files)
            assert patients is not None
            assert patients[index].tolist() == [f"P{number // 2}" for number in index]
            seen.append(set(patients[index].tolist()))
            if split == "test":
                tested += index.tolist()
        assert len(seen[0] | seen[1] | seen[2]) == sum(map(len, seen))  # nobody is in two splits
    assert sorted(tested) == list(range(12))


def test_a_fold_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = folded(tmp_path)
    with pytest.raises(DataError, match="has no fold 4; it has 0 to 3"):
        read_fold_rows(path, "test", 4)
    with pytest.raises(DataError, match="phantom2d has no folds"):
        load_split("phantom2d", "val", fold=0)


def test_twins_are_found_by_fold(tmp_path: Path) -> None:
    path = folded(tmp_path)
    with np.load(path) as content:
        arrays = dict(content)
    # Of patients 0 and 4, in folds 0 and 0: a test image of fold 0 that is no twin there, and one of fold 1.
    arrays["val_images"][0] = arrays["train_images"][0]
    arrays["test_images"][2] = arrays["train_images"][1]
    np.savez(path, **arrays)
    stored = {(twin.split, twin.index, twin.of_split, twin.of_index) for twin in find_twins(path)}
    assert stored == {("val", 0, "train", 0), ("test", 2, "train", 1)}
    # All images in order: val 0 is image 6, in fold 3; test 2 is image 11, in fold 1; both repeat fold 0.
    assert [(twin.split, twin.index, twin.of_index) for twin in find_twins(path, 0)] == [
        ("test", 0, 6),
        ("test", 1, 11),
    ]
