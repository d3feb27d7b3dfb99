"""DICOM as archives hold it: series in any order, frames, windows, and files that are no images."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from raypatch.data.inputs.dicom import group_series, patient_of, read_dicom
from raypatch.data.layout.npz import DataError

from dicoms import write_dicom, write_series

VOLUME = np.random.default_rng(0).integers(0, 1000, (5, 6, 7)).astype(np.int16)


def read_series(folder: Path, frame: int | None = None) -> np.ndarray:
    (image,) = group_series(sorted(folder.iterdir()), folder.parent)
    return read_dicom(image.files, dimensions=3, frame=frame).values


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 2, 4, 1, 3]])
def test_slices_are_sorted_by_where_they_lie(tmp_path: Path, order: list[int]) -> None:
    folder = write_series(tmp_path / "a", VOLUME, order=order)
    assert np.array_equal(read_series(folder), VOLUME)


def test_a_series_is_upright_with_its_spacing(tmp_path: Path) -> None:
    # Sagittal slices: rows run to the foot, columns to the back, slices to the right.
    uid = "1.2.3"
    (tmp_path / "a").mkdir()
    for x in range(VOLUME.shape[2]):
        write_dicom(
            tmp_path / "a" / f"{x}.dcm",
            VOLUME[::-1, ::-1, x],
            SeriesInstanceUID=uid,
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[-3.0 * x, 0, 0],
            PixelSpacing=[0.5, 0.7],
        )
    (image,) = group_series(sorted((tmp_path / "a").iterdir()), tmp_path)
    scan = read_dicom(image.files, dimensions=3)
    assert np.array_equal(scan.values, VOLUME)
    assert scan.spacing == pytest.approx((0.5, 0.7, 3.0))


def test_several_times_at_one_place_need_a_frame(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", VOLUME, SeriesInstanceUID="1.2.3")
    later = write_series(tmp_path / "b", VOLUME + 1, SeriesInstanceUID="1.2.3")
    for number, file in enumerate(sorted(later.iterdir())):
        file.rename(folder / f"later{number}.dcm")
    with pytest.raises(DataError, match=r"up to 2 files at one position.*--frame"):
        read_series(folder)
    assert np.array_equal(read_series(folder, frame=1), VOLUME + 1)
    with pytest.raises(DataError, match="not every position has a frame 2"):
        read_series(folder, frame=2)


def test_a_missing_slice_is_told(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", VOLUME)
    (folder / "002.dcm").unlink()
    with pytest.raises(DataError, match="some are missing"):
        read_series(folder)


def test_frames_are_a_volume_or_need_a_number(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", VOLUME.astype(np.uint16))
    assert np.array_equal(read_dicom([path], dimensions=3).values, VOLUME)
    assert np.array_equal(read_dicom([path], dimensions=2, frame=3).values, VOLUME[3])
    with pytest.raises(DataError, match="holds 5 frames"):
        read_dicom([path], dimensions=2)


def test_colour_is_colour(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    scan = read_dicom([write_dicom(tmp_path / "a.dcm", colour)], dimensions=2)
    assert scan.in_colour
    assert np.array_equal(scan.values, colour)


def test_values_are_rescaled_and_the_patient_is_known(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", VOLUME[0], RescaleSlope=2, RescaleIntercept=-1024, Modality="CT", PatientID=" P7 "
    )
    assert np.array_equal(read_dicom([path], dimensions=2).values, VOLUME[0] * 2.0 - 1024)
    assert patient_of(path) == "P7"


def test_what_holds_no_pixels_or_no_codec_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"without pixels \(modality SR\)"):
        read_dicom([write_dicom(tmp_path / "report.dcm", None, Modality="SR")], dimensions=2)
    packed = write_dicom(tmp_path / "packed.dcm", VOLUME[0].astype(np.uint16))
    data = pydicom.dcmread(packed)
    data.PixelData = encapsulate([b"\xff\xd8 no such codec here "])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.save_as(packed)
    with pytest.raises(DataError, match=r"compressed as JPEG-LS.*no codec.*pip install"):
        read_dicom([packed], dimensions=2)
    (tmp_path / "torn.dcm").write_bytes(packed.read_bytes()[:90])
    with pytest.raises(DataError, match=r"torn\.dcm is no DICOM file"):
        read_dicom([tmp_path / "torn.dcm"], dimensions=2)
