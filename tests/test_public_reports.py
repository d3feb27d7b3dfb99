"""What users of other tools reported, tried here: one behaviour a test, with where it was reported."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypatch.data.inputs import read_inputs
from raypatch.data.npz import DataError, inspect_npz

SPLITS = (("train", 24), ("val", 12), ("test", 12))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 22883432\n"


def make_file(path: Path, **changes: np.ndarray | None) -> Path:
    """A small .npz of two classes, with some arrays changed; None takes one away."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray | None] = {}
    for split, count in SPLITS:
        labels = np.arange(count) % 2
        noise = random.integers(0, 100, (count, 16, 16))
        arrays[f"{split}_images"] = (noise + 100 * labels[:, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def read_pictures(folder: Path) -> np.ndarray:
    _, images = read_inputs(folder, "test", dimensions=2, channels=1, image_size=16, resize="bilinear")
    return images.numpy()


def test_hidden_files_of_a_mac_are_left_out(tmp_path):
    """OpenNeuroOrg/openneuro#2520."""
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    assert len(read_pictures(tmp_path)) == 1


def test_channels_first_is_no_volume(tmp_path):
    """danielvarga/keras-finetuning#10: the advice for volumes, followed, trains on nonsense."""
    images = {f"{split}_images": np.zeros((count, 3, 16, 16), np.uint8) for split, count in SPLITS}
    with pytest.raises(DataError, match="channels go last"):
        inspect_npz(make_file(tmp_path / "own.npz", **images))


def test_two_classes_of_one_name_are_refused_before_they_lose_the_report(tmp_path):
    """mlfoundations/open_clip#917, pytorch/vision#1734: arrays of U5 cut `benign_a` and `benign_b` alike."""
    names = np.array(["benign_a", "benign_b"]).astype("U6")
    with pytest.raises(DataError, match=r"has 'benign' 2 times.*an array of <U6 cuts longer ones off"):
        inspect_npz(make_file(tmp_path / "own.npz", class_names=names))


def test_one_hot_labels_are_not_taken_for_multi_label(tmp_path):
    """MedMNIST/MedMNIST#53: accuracy of predicting nothing was 75 %."""
    labels = {f"{split}_labels": np.eye(4, dtype=np.uint8)[np.arange(count) % 4] for split, count in SPLITS}
    with pytest.raises(DataError, match="one-hot"):
        inspect_npz(make_file(tmp_path / "own.npz", **labels))


@pytest.mark.parametrize("kind", ["16 bit png", "16 bit tiff", "float tiff"])
def test_deep_pictures_are_not_clipped_to_white(tmp_path, kind):
    """python-pillow/Pillow#3011, Deci-AI/super-gradients#1920."""
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = picture.astype(np.float32) / 255 if "float" in kind else picture.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / ("a.png" if "png" in kind else "a.tif"))
    assert np.array_equal(read_pictures(tmp_path)[0, 0], picture)


def test_one_scan_in_two_orientations_is_one_array(tmp_path):
    """MIC-DKFZ/nnUNet#1167."""
    import nibabel

    scan = np.random.default_rng(0).integers(0, 255, (8, 8, 8), dtype=np.uint8)
    found = []
    for name, values, affine in (("ras", scan, np.eye(4)), ("las", scan[::-1], np.diag([-1, 1, 1, 1]))):
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
        path = tmp_path / f"{name}.nii.gz"
        found.append(read_inputs(path, "test", dimensions=3, channels=1, image_size=8, resize="bilinear")[1])
    assert found[0].equal(found[1])


def test_a_volume_of_one_frame_is_a_volume_and_nan_is_called_nan(tmp_path):
    """NeuroVault/NeuroVault#486."""
    import nibabel

    values = np.random.default_rng(0).random((8, 8, 8, 1), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    options = {"dimensions": 3, "channels": 1, "image_size": 8, "resize": "bilinear"}
    assert read_inputs(tmp_path / "a.nii", "test", **options)[1].shape == (1, 1, 8, 8, 8)
    values[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(DataError, match="NaN"):
        read_inputs(tmp_path / "b.nii", "test", **options)


def test_new_images_need_no_labels(tmp_path):
    """mlcommons/GaNDLF#360."""
    path = tmp_path / "new.npz"
    images = np.random.default_rng(0).integers(0, 255, (5, 16, 16), dtype=np.uint8)
    np.savez(path, test_images=images)
    names, found = read_inputs(path, "test", dimensions=2, channels=1, image_size=16, resize="bilinear")
    assert names[0] == "test:0"
    assert np.array_equal(found[:, 0].numpy(), images)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    """microsoft/OmniParser#34."""
    path = tmp_path / "own.npz"
    path.write_bytes(POINTER)
    with pytest.raises(DataError, match="git-lfs pointer"):
        inspect_npz(path)


LOCK = """
import errno, fcntl, os, sys
from pathlib import Path
def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
from raypatch.storage.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    pass
with hold_lock(Path(sys.argv[1])):
    pass
"""


def test_a_file_system_without_locks_is_no_reason_to_fail_and_is_told_once(tmp_path):
    """tox-dev/filelock#67, DataBiosphere/toil#4846."""
    command = [sys.executable, "-c", LOCK, str(tmp_path / ".lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stderr.count("has no locks") == 1
    assert list(tmp_path.iterdir()) == []
