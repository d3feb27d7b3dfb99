"""One picture is the same pixels in whatever file it lies, packed or read by predict."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from raypatch.data.inputs import InputRule, read_inputs
from raypatch.data.inputs.rule import Intensity
from raypatch.data.pack import PackOptions, pack

from dicoms import write_dicom

GREY = np.random.default_rng(3).integers(0, 256, (12, 16), dtype=np.uint8)
GREY.flat[:2] = 0, 255  # so that percentiles 0 and 100 are black and white
OTHER = GREY[::-1]
OPTIONS = PackOptions(size=24, shares=(0.5, 0.25, 0.25))
ORIENTATIONS = ("RAS", "LPS", "PIR", "ASL")


def _png(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey).save(path.with_suffix(".png"))


def _png16(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.uint16) * 257).save(path.with_suffix(".png"))


def _tiff(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.float32) / 255).save(path.with_suffix(".tif"))


def _dicom(path: Path, grey: np.ndarray) -> None:
    write_dicom(path.with_suffix(".dcm"), grey)


def _dicom12(path: Path, grey: np.ndarray) -> None:
    values = np.rint(grey / 255 * 4095).astype(np.uint16)
    write_dicom(path.with_suffix(".dcm"), values, BitsStored=12)


def _dicom_inverted(path: Path, grey: np.ndarray) -> None:
    write_dicom(path.with_suffix(".dcm"), 255 - grey, PhotometricInterpretation="MONOCHROME1")


def _dicom_window(path: Path, grey: np.ndarray) -> None:
    # Stored as 2 x + 7, brought back to -1000 + x by the slope; the window is the 256 values of x.
    values = grey.astype(np.uint16) * 2 + 7
    window = {"WindowCenter": -1000 + 128, "WindowWidth": 256}
    write_dicom(path.with_suffix(".dcm"), values, RescaleSlope=0.5, RescaleIntercept=-1003.5, **window)


def _nifti(codes: str):
    def write(path: Path, grey: np.ndarray) -> None:
        # As a screen shows it: rows from the front, columns from the patient's right.
        upright = nibabel.Nifti1Image(grey.T[::-1, ::-1, None], np.eye(4))
        turned = upright.as_reoriented(ornt_transform(io_orientation(upright.affine), axcodes2ornt(codes)))
        nibabel.save(turned, path.with_suffix(".nii.gz"))

    return write


FORMS = {
    "png 8": _png,
    "png 16": _png16,
    "tiff float": _tiff,
    "dicom 8": _dicom,
    "dicom 12": _dicom12,
    "dicom inverted": _dicom_inverted,
    "dicom window": _dicom_window,
} | {f"nifti {codes}": _nifti(codes) for codes in ORIENTATIONS}


def _make_source(folder: Path, write) -> Path:
    for name, grey in (("a", GREY), ("b", OTHER)):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            write(folder / name / str(number), np.roll(grey, number, axis=1))
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_packed_and_predicted_on_as_the_same_pixels(tmp_path: Path, form: str) -> None:
    plain = pack(_make_source(tmp_path / "png", _png), tmp_path / "png.npz", OPTIONS, say=bool)
    source = _make_source(tmp_path / "form", FORMS[form])
    packed = pack(source, tmp_path / "form.npz", OPTIONS, say=bool)
    with np.load(plain) as first, np.load(packed) as second:
        assert np.abs(first["train_images"].astype(int) - second["train_images"]).max() <= 1
        trained_on_png = InputRule.from_json(str(first["rule"]))
        by_name = dict(zip([name[:3] for name in first["train_ids"]], first["train_images"], strict=True))
    names, read = read_inputs(
        source / "a", "test", dimensions=2, channels=1, image_size=24, resize="bilinear", rule=trained_on_png
    )
    for name, image in zip(names, read, strict=True):
        expected = by_name.get(f"a/{name[0]}")
        if expected is not None:
            assert np.abs(image[0].numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("form", FORMS)
def test_percentiles_give_one_picture_too(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path / "a", GREY)
    rule = InputRule(dimensions=2, channels=1, size=16, intensity=Intensity(kind="percentile", low=0, high=100))
    _, read = read_inputs(tmp_path, "test", dimensions=2, channels=1, image_size=16, resize="bilinear", rule=rule)
    expected = np.zeros((16, 16), dtype=np.uint8)
    expected[2:14] = GREY
    assert np.abs(read[0, 0].numpy().astype(int) - expected).max() <= 1
