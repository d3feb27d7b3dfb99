"""Who is on two sides of a split, in words."""

import numpy as np

from raypatch.data.check import describe_torn_patients

from tiny import make_images


def told(path, names):
    with np.load(make_images(path)) as stored:
        arrays = dict(stored)
    np.savez(path, **arrays, **{f"{split}_patients": np.array(who) for split, who in names.items()})
    return path


def test_patients_on_one_side_only_are_counted(tmp_path):
    names = {"train": ["a", "b"] * 12, "val": ["c"] * 12, "test": ["d", "e", "f"] * 4}
    path = told(tmp_path / "own.npz", names)
    assert describe_torn_patients(path) == ["patients: train 2, val 1, test 3; none is in two splits"]


def test_torn_patients_are_named_with_their_sides(tmp_path):
    everyone = [f"p{place:02}" for place in range(12)]
    path = told(tmp_path / "own.npz", {"train": everyone * 2, "val": ["v"] * 12, "test": everyone})
    first, second, *_, last = describe_torn_patients(path, show=3)
    assert "12 are in more than one split" in first
    assert second == "  p00: images in train 2, test 1"
    assert last == "  and 9 more (--all lists them)"
    assert len(describe_torn_patients(path, show=None)) == 13


def test_a_file_without_patients_says_so(tmp_path):
    assert describe_torn_patients(make_images(tmp_path / "own.npz")) == [
        "patients: the file does not say who is on its images"
    ]
