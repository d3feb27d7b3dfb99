"""Masks in an .npz: what is read, and what is refused with the way out."""

from pathlib import Path

import numpy as np
import pytest

from raypatch.data.layout.archive import DataError
from raypatch.data.layout.npz import inspect_masks, inspect_npz, read_images_and_masks
from raypatch.data.source import describe, load_split

from tiny import make_images, make_masks


def test_masks_alone_are_a_segmentation(tmp_path: Path) -> None:
    info = inspect_npz(make_masks(tmp_path / "a.npz", classes=3))
    assert (info.task, info.classes, info.counts) == ("segmentation", ("background", "class 1", "class 2"), (12, 6, 6))
    images, masks = read_images_and_masks(tmp_path / "a.npz", "val")
    assert images.shape == masks.shape == (6, 16, 16)


def test_beside_labels_they_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    labels = {f"{split}_labels": np.arange(n) % 3 for split, n in (("train", 12), ("val", 6), ("test", 6))}
    data = make_masks(tmp_path / "a.npz", **labels, mask_names=np.array(["background", "lesion"]))
    assert inspect_npz(data).task == "multiclass"
    assert inspect_masks(data).classes == ("background", "lesion")


ONES = np.ones((6, 16, 16), np.uint8)
BAD = [
    ({"val_masks": ONES[:, :8]}, r"val_masks has shape \(6, 8, 16\), val_images has \(6, 16, 16\)"),
    ({"test_masks": ONES * 2}, "test_masks holds class 2, out of range: there are classes 0 to 1"),
    ({"train_masks": np.zeros((12, 16, 16), np.uint8)}, "train_masks is background alone"),
    ({"train_masks": np.full((12, 16, 16), 255, np.uint8)}, r"no pixel of class 1;.*\(masks > 0\).astype\('uint8'\)"),
    ({"train_masks": np.ones((12, 16, 16))}, "train_masks is float64 but must be whole numbers"),
    ({"train_masks": -np.ones((12, 16, 16), int)}, "train_masks holds -1 to -1; number the classes 0 to K-1"),
    ({"mask_names": np.array(["background", "a", "b"])}, "train_masks has no pixel of class 2"),
    ({"mask_names": np.array(["a", "a"])}, "mask_names has 'a' 2 times"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD)
def test_masks_that_break_a_rule_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    data = make_masks(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        inspect_masks(data)


def test_a_set_without_masks_says_how_to_have_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train_masks is absent; .* `raypatch data pack`"):
        inspect_masks(make_images(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="breastmnist has no masks"):
        describe("breastmnist", masks=True)
    with pytest.raises(DataError, match="is of volumes; a segmentation is of 2D images"):
        inspect_masks(make_images(tmp_path / "b.npz", dimensions=3).rename(tmp_path / "c.npz"))


def test_made_images_have_the_masks_of_their_blobs() -> None:
    info = describe("phantom2d", masks=True)
    assert (info.task, info.classes) == ("segmentation", ("background", "blob"))
    found = load_split("phantom2d", "val", masks=True)
    assert np.array_equal(found.images, load_split("phantom2d", "val").images)
    inside = found.labels == 1
    assert 0.05 < inside.mean() < 0.4
    assert found.images[inside].mean() > found.images[~inside].mean() + 40
