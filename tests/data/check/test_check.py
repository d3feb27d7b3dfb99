"""What a check finds in a dataset, in numbers, in sentences, and as pictures to look at."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from raypatch.data.check import check_file, short_findings
from raypatch.data.check.page import write_check


def make_file(folder: Path, **changes: np.ndarray) -> Path:
    random = np.random.default_rng(0)
    arrays = {"class_names": np.array(["well", "ill"])}
    for split, count in (("train", 40), ("val", 12), ("test", 12)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
        arrays[f"{split}_patients"] = np.array([f"{split}{number}" for number in range(count)])
    np.savez(folder / "own.npz", **arrays | changes)
    return folder / "own.npz"


def test_a_clean_file_has_only_small_classes(tmp_path: Path) -> None:
    found = check_file(make_file(tmp_path))
    assert found.warnings == [
        "fewer than 10 images: well in val (6), ill in val (6), well in test (6), ill in test (6)"
    ]
    assert found.balance.tolist() == [[20, 20], [6, 6], [6, 6]]
    assert found.patients == {"train": 40, "val": 12, "test": 12}


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    train = random.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    test = random.integers(100, 256, (12, 28, 28), dtype=np.uint8)
    test[3], test[4] = train[7], 0
    labels = np.zeros((40, 1), dtype=int)
    labels[0] = 1
    patients = np.array([f"train{number}" for number in range(12)])
    path = make_file(tmp_path, train_images=train, test_images=test, train_labels=labels, test_patients=patients)
    found = check_file(path)
    text = "\n".join(found.warnings)
    assert "1 of 12 test images repeats one of an earlier split" in text
    assert "12 patients are in more than one split: train0, train1" in text
    assert "ill in train (1)" in text
    assert "1 test image is of one value only, such as test 4" in text
    assert "test images differ in brightness from train's" in text
    assert any("12 patients are in more than one split" in line for line in short_findings(path))


def test_repeated_images_are_named_and_the_rest_is_in_a_file(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    changes = {"train_images": images, "test_images": images}
    changes["test_labels"] = changes["train_labels"] = (np.arange(40) % 2)[:, None]
    changes["test_patients"] = np.array([f"test{number}" for number in range(40)])
    for split, count in (("train", 40), ("val", 12), ("test", 40)):
        changes[f"{split}_ids"] = np.array([f"{split}/{number}.png" for number in range(count)])
    findings = check_file(make_file(tmp_path, **changes))
    lines = findings.lines()
    assert "  test 0  train 0  equal  test/0.png and train/0.png" in lines
    assert "  and 20 more; check.json lists them" in lines
    page = write_check(findings, tmp_path / "out")
    assert page.read_text().count("40 of 40 test images repeat one") == 1
    assert len(json.loads((tmp_path / "out" / "check.json").read_text())["twins"]) == 40


def test_the_sheet_shows_every_class_and_outlines_masks(tmp_path: Path) -> None:
    masks = {
        f"{split}_masks": np.zeros((count, 28, 28), np.uint8)
        for split, count in (("train", 40), ("val", 12), ("test", 12))
    }
    for values in masks.values():
        values[:, 8:20, 8:20] = 1
    findings = check_file(make_file(tmp_path, **masks))
    page = write_check(findings, tmp_path / "out", ["how it was packed"])
    sheet = np.asarray(Image.open(tmp_path / "out" / "contact.png"))
    assert (sheet == [255, 64, 64]).all(axis=-1).sum() > 1000
    text = page.read_text()
    assert "<pre>own.npz: 64 images of 28 x 28, with masks" in text
    assert "how it was packed" in text
    assert json.loads((tmp_path / "out" / "check.json").read_text())["classes"] == {
        "well": [20, 6, 6],
        "ill": [20, 6, 6],
    }
