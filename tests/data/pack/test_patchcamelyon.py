"""PatchCamelyon's form: x and y of each split in files of their own, slides as patients."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from raypatch.data.layout.npz import DataError, inspect_npz
from raypatch.data.pack import PackOptions, pack

COUNTS = {"train": 12, "valid": 6, "test": 6}


def make_set(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        stem = f"camelyonpatch_level_2_split_{split}"
        with h5py.File(folder / f"{stem}_x.h5", "w") as file:
            file["x"] = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        with h5py.File(folder / f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(count, dtype=np.uint8) % 2).reshape(-1, 1, 1, 1)
        rows = "".join(f"{split}{number // 2}\n" for number in range(count))
        (folder / f"{stem}_meta.csv").write_text(f"wsi\n{rows}")
    return folder


def test_each_split_is_kept_with_its_slides(tmp_path: Path) -> None:
    source = make_set(tmp_path / "pcam")
    out = pack(source, tmp_path / "pcam.npz", PackOptions(), say=bool)
    info = inspect_npz(out)
    assert (info.counts, info.size, info.channels, info.classes) == ((12, 6, 6), 8, 3, ("0", "1"))
    with np.load(out) as arrays, h5py.File(source / "camelyonpatch_level_2_split_valid_x.h5") as file:
        assert np.array_equal(arrays["val_images"], file["x"][:])
        assert arrays["val_patients"].tolist() == ["valid0", "valid0", "valid1", "valid1", "valid2", "valid2"]


def test_labels_of_another_number_are_refused(tmp_path: Path) -> None:
    source = make_set(tmp_path / "pcam")
    with h5py.File(source / "camelyonpatch_level_2_split_test_y.h5", "w") as file:
        file["y"] = np.zeros(5)
    with pytest.raises(DataError, match="holds 5 labels for the 6 images"):
        pack(source, tmp_path / "pcam.npz", PackOptions(), say=bool)
