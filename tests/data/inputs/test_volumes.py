"""One scan gives one array, whichever way its file stores it."""

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from raypatch.data.inputs import read_inputs
from raypatch.data.inputs.reading import read_listed
from raypatch.data.inputs.scan import ImageFiles
from raypatch.data.layout.npz import DataError

SCAN = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)  # (x, y, z)
SCAN.flat[:2] = 0, 255  # so that the stretch changes nothing


def read_volume(path):
    (volume,) = read_listed([ImageFiles(path.name, (path,))], 3, 1, None)
    return volume


def save(path, values, affine=None):
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "RPI", "PIR", "ASL", "IPR"])
def test_one_scan_is_one_array_in_every_orientation(tmp_path, codes):
    upright = nibabel.Nifti1Image(SCAN, np.diag([2, 3, 4, 1.0]))
    turned = upright.as_reoriented(ornt_transform(io_orientation(upright.affine), axcodes2ornt(codes)))
    nibabel.save(turned, tmp_path / "a.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz"), SCAN.transpose(2, 1, 0))


def test_a_tilted_scan_is_turned_to_the_nearest(tmp_path):
    angle = 0.2
    tilt = np.eye(4)
    tilt[:2, :2] = [[-np.cos(angle), -np.sin(angle)], [np.sin(angle), -np.cos(angle)]]  # nearly L, P
    assert np.array_equal(read_volume(save(tmp_path / "a.nii", SCAN, tilt)), SCAN[::-1, ::-1].transpose(2, 1, 0))


def test_a_file_that_says_nothing_is_read_as_it_lies(tmp_path):
    image = nibabel.Nifti1Image(SCAN, np.diag([-1, 1, 1, 1.0]))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii")
    assert not stored.header["qform_code"]
    assert not stored.header["sform_code"]
    assert np.array_equal(read_volume(tmp_path / "a.nii"), SCAN.transpose(2, 1, 0))


def test_axes_of_one_are_no_axes(tmp_path):
    expected = SCAN.transpose(2, 1, 0)
    assert np.array_equal(read_volume(save(tmp_path / "a.nii", SCAN[..., None])), expected)
    assert np.array_equal(read_volume(save(tmp_path / "b.nii", SCAN[..., None, None])), expected)


def _colours():
    return np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


REFUSED = {
    "frames": (lambda: np.stack([SCAN] * 3, axis=-1), r"holds 3 volumes, its shape is \(5, 6, 7, 3\)"),
    "vectors": (lambda: np.zeros((4, 4, 4, 1, 3), np.float32), r"holds 3 volumes"),
    "slice": (lambda: SCAN[:, :, 0], r"holds no volume|shape is"),
    "NaN": (lambda: np.where(SCAN == 0, np.nan, SCAN).astype(np.float32), r"NaN or infinity in \d+ of 210 voxels"),
    "infinity": (lambda: np.where(SCAN == 0, np.inf, SCAN).astype(np.float32), r"NaN or infinity"),
    "colour": (_colours, r"raypatch reads grey volumes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_one_volume_is_refused_by_name(tmp_path, case):
    make, message = REFUSED[case]
    path = save(tmp_path / "a.nii.gz", make())
    with pytest.raises(DataError, match=message) as refused:
        read_volume(path)
    assert str(path) in str(refused.value)
    assert "not shape" not in str(refused.value)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DataError, match="git-lfs pointer"):
        read_volume(path)


def test_hidden_files_are_left_out(tmp_path):
    save(tmp_path / "b.nii.gz", SCAN)
    save(tmp_path / "a.nii.gz", SCAN)
    (tmp_path / "._a.nii.gz").write_bytes(b"\x00\x05\x16\x07")
    names, images = read_inputs(tmp_path, "test", dimensions=3, channels=1, image_size=8, resize="bilinear")
    assert names == ["a.nii.gz", "b.nii.gz"]
    assert images.shape[:2] == (2, 1)
