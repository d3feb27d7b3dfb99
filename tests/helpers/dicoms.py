"""DICOM files as a scanner or an archive writes them, small."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def write_dicom(path: Path, values: NDArray[Any] | None, **entries: Any) -> Path:
    """Write a picture (H, W), (frames, H, W) or (H, W, 3); None leaves the pixels out. entries: of the header."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data.Modality = "OT"
    if values is not None:
        in_colour = values.ndim == 3 and values.shape[-1] == 3
        bits = 8 * values.dtype.itemsize
        data.SamplesPerPixel = 3 if in_colour else 1
        data.PhotometricInterpretation = "RGB" if in_colour else "MONOCHROME2"
        if in_colour:
            data.PlanarConfiguration = 0
        if values.ndim == 3 and not in_colour:
            data.NumberOfFrames = len(values)
        data.Rows, data.Columns = values.shape[:2] if in_colour else values.shape[-2:]
        data.BitsAllocated = data.BitsStored = bits
        data.PixelRepresentation = int(values.dtype.kind == "i")
        data.PixelData = np.ascontiguousarray(values).tobytes()
    for name, value in entries.items():
        setattr(data, name, value)
    if values is not None:
        data.HighBit = data.BitsStored - 1
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, volume: NDArray[Any], *, order: list[int] | None = None, **entries: Any) -> Path:
    """Write (z, y, x), running to the head, the front and the right, as axial slices seen from below.

    order: in which the files are named.
    """
    folder.mkdir(parents=True)
    uid = generate_uid(entropy_srcs=[str(folder)])
    for name, z in enumerate(order or range(len(volume))):
        # DICOM's rows run to the back and its columns to the left.
        own = {
            "SeriesInstanceUID": uid,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, 2.0 * z],
            "PixelSpacing": [1.0, 1.0],
            "InstanceNumber": name,
            "Modality": "MR",
            "PatientID": folder.name,
        }
        write_dicom(folder / f"{name:03}.dcm", volume[z, ::-1, ::-1], **own | entries)
    return folder
