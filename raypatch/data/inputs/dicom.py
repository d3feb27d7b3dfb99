"""DICOM: single pictures, multi-frame files, and series stacked by where their slices lie."""

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypatch.data.inputs.scan import ImageFiles, Look, Scan
from raypatch.data.layout.archive import DataError
from raypatch.storage.impostors import explain_impostor

_SAME_PLACE = 1e-3
"""Millimetres below which two slices lie in one place."""

_UNEVEN = 0.1
"""Share of their distance by which gaps between slices may differ before one is taken to be missing."""


def patient_of(path: Path) -> str:
    """Return the PatientID that a file says, empty where it says none."""
    return str(getattr(_header(path), "PatientID", "") or "").strip()


def group_series(files: Sequence[Path], root: Path) -> list[ImageFiles]:
    """Return one image per series, named by the folder of its files, in the order of the files."""
    series: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        key = (file.parent, str(getattr(_header(file), "SeriesInstanceUID", "")))
        series.setdefault(key, []).append(file)
    in_folder: dict[Path, int] = {}
    for folder, _ in series:
        in_folder[folder] = in_folder.get(folder, 0) + 1
    images = []
    for (folder, uid), members in series.items():
        name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
        if len(members) == 1:
            name = members[0].relative_to(root).as_posix()
        elif in_folder[folder] > 1:
            name = f"{name}/{uid}"
        images.append(ImageFiles(name, tuple(members)))
    return images


def look_at_dicom(files: Sequence[Path]) -> Look:
    """See what a picture or a series is, by the header of its first file."""
    header = _header(files[0])
    frames = int(getattr(header, "NumberOfFrames", 1) or 1)
    try:
        edges: tuple[int, ...] = (int(header.Rows), int(header.Columns))
    except (AttributeError, TypeError) as error:
        raise _without_pixels(files[0]) from error
    if max(frames, len(files)) > 1:
        edges = (max(frames, len(files)), *edges)
    return Look(edges, 3 if _is_colour(header) else 1, modality=str(getattr(header, "Modality", "OT")))


def read_dicom(files: Sequence[Path], *, dimensions: int, frame: int | None = None) -> Scan:
    """Read one image as (H, W), (H, W, 3) uint8, or of dimensions 3 as (z, y, x), turned as NIfTI volumes are.

    Values are those after the rescale slope or the modality table; the first window of the file, or
    else its stored bits, says what is black and white. MONOCHROME1 is inverted. Slices are sorted by
    their position along the normal of their plane. frame: of several frames, or of several times at
    one position, which one. Raises DataError naming the file.
    """
    if dimensions == 2:
        return _read_picture(files, frame)
    if len(files) > 1:
        return _read_series(files, frame)
    data, values = _read_file(files[0])
    if values.ndim != 3 or _is_colour(data):
        raise DataError(f"{files[0]} holds one slice of {values.shape}, where a volume is needed: is its series whole?")
    return replace(_with_meaning(data, values), spacing=_spacing_of(data))


def _read_picture(files: Sequence[Path], frame: int | None) -> Scan:
    if len(files) > 1:
        raise DataError(f"{files[0].parent} holds a series of {len(files)} files, where a picture is needed")
    data, values = _read_file(files[0])
    frames = int(getattr(data, "NumberOfFrames", 1) or 1)
    if frames > 1:
        if frame is None:
            raise DataError(f"{files[0]} holds {frames} frames; name the one that is meant with --frame")
        if frame >= frames:
            raise DataError(f"{files[0]} holds {frames} frames, so there is no frame {frame}: they count from 0")
        values = values[frame]
    scan = _with_meaning(data, values)
    spacing = getattr(data, "PixelSpacing", None) or getattr(data, "ImagerPixelSpacing", None)
    pair = tuple(map(float, spacing)) if spacing else None
    return replace(scan, spacing=pair)


def _is_colour(data: Any) -> bool:
    has_palette = getattr(data, "PhotometricInterpretation", "") == "PALETTE COLOR"
    return has_palette or int(getattr(data, "SamplesPerPixel", 1)) == 3


def _read_series(files: Sequence[Path], frame: int | None) -> Scan:
    slices = _sorted_slices(files, frame)
    read = [_read_file(file) for _, file in slices]
    shapes = {values.shape for _, values in read}
    if len(shapes) > 1:
        raise DataError(f"{files[0].parent} holds slices of different shapes, {sorted(shapes)}; separate the series")
    data = read[0][0]
    # (z, y, x) as the files lie; a rescale slope may differ from slice to slice, which is applied.
    stack = np.stack([values for _, values in read])
    scan = _with_meaning(data, stack)
    positions = [position for position, _ in slices]
    if None in positions:
        return replace(scan, spacing=_spacing_of(data))
    gaps = np.diff(np.array(positions, dtype=float))
    if len(gaps) and gaps.max() > (1 + _UNEVEN) * gaps.min():
        raise DataError(
            f"{files[0].parent}: slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart,"
            " so that some are missing; bring them back, or leave the series out"
        )
    step = float(gaps.mean()) if len(gaps) else 1.0
    return _turn_upright(data, scan, step)


def _turn_upright(data: Any, scan: Scan, step: float) -> Scan:
    """Turn a stack (slice, row, column) to (z, y, x), as `read_nifti` does. Needs nibabel."""
    try:
        from nibabel import orientations
    except ImportError as error:
        raise DataError("turning a DICOM series upright needs nibabel: pip install 'raypatch[medical]'") from error
    along_row, along_column, normal = _directions(data)
    rows, columns = map(float, data.PixelSpacing)
    affine = np.eye(4)
    # DICOM counts towards the left and the back, NIfTI towards the right and the front.
    to_ras = np.array([-1.0, -1.0, 1.0])
    affine[:3, 0] = to_ras * along_row * columns
    affine[:3, 1] = to_ras * along_column * rows
    affine[:3, 2] = to_ras * normal * step
    orientation = orientations.io_orientation(affine)
    lying = scan.values.transpose(2, 1, 0)
    turned = orientations.apply_orientation(lying, orientation)
    steps = np.zeros(3)
    steps[orientation[:, 0].astype(int)] = columns, rows, step
    spacing = tuple(float(each) for each in steps[::-1])
    return replace(scan, values=np.ascontiguousarray(turned.transpose(2, 1, 0)), spacing=spacing)


def _directions(data: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where columns, rows and slices run to, as unit vectors in DICOM's frame."""
    said = np.array(data.ImageOrientationPatient, dtype=np.float64)
    along_row, along_column = said[:3], said[3:]
    return along_row, along_column, np.cross(along_row, along_column)


def _sorted_slices(files: Sequence[Path], frame: int | None) -> list[tuple[float | None, Path]]:
    """Slices by their position along the normal, each with it; without positions by their number."""
    placed = []
    for file in files:
        header = _header(file)
        number = int(getattr(header, "InstanceNumber", 0) or 0)
        position = None
        if "ImagePositionPatient" in header and "ImageOrientationPatient" in header and "PixelSpacing" in header:
            normal = _directions(header)[2]
            position = float(np.dot(normal, np.array(header.ImagePositionPatient, dtype=np.float64)))
        placed.append((position, number, file))
    if any(position is None for position, _, _ in placed):
        by_number = sorted(placed, key=lambda each: (each[1], each[2].name))
        return [(None, file) for _, _, file in by_number]
    placed.sort(key=lambda each: (each[0], each[1], each[2].name))
    by_place: list[list[tuple[float | None, Path]]] = []
    for position, _, file in placed:
        same = by_place and abs((by_place[-1][-1][0] or 0.0) - (position or 0.0)) < _SAME_PLACE
        if same:
            by_place[-1].append((position, file))
        else:
            by_place.append([(position, file)])
    times = max(len(place) for place in by_place)
    if times > 1 and frame is None:
        raise DataError(
            f"{files[0].parent} holds a series with up to {times} files at one position, such as points in time;"
            " name the one that is meant with --frame"
        )
    chosen = frame or 0
    if min(len(place) for place in by_place) <= chosen:
        raise DataError(f"{files[0].parent}: not every position has a frame {chosen}; they count from 0")
    return [place[chosen if times > 1 else 0] for place in by_place]


def _with_meaning(data: Any, values: NDArray[Any]) -> Scan:
    """What is black and white in values that were rescaled."""
    if _is_colour(data):
        return Scan(values, window=(0.0, 255.0), in_colour=True)
    inverted = getattr(data, "PhotometricInterpretation", "") == "MONOCHROME1"
    centre, width = _first(data, "WindowCenter"), _first(data, "WindowWidth")
    if centre is not None and width is not None and width > 1:
        # DICOM PS3.3 C.11.2.1.2: linear, between centre - .5 - (width - 1) / 2 and the same above.
        half = (width - 1) / 2
        return Scan(values, window=(centre - 0.5 - half, centre - 0.5 + half), inverted=inverted)
    bits, signed = int(data.BitsStored), int(getattr(data, "PixelRepresentation", 0))
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = _first(data, "RescaleSlope"), _first(data, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    return Scan(values, window=(low * slope + intercept, high * slope + intercept), inverted=inverted)


def _first(data: Any, name: str) -> float | None:
    value = getattr(data, name, None)
    if value is None or value == "":
        return None
    several = getattr(value, "__len__", None) is not None and not isinstance(value, str)
    if several and not len(value):
        return None
    return float(value[0] if several else value)


def _spacing_of(data: Any) -> tuple[float, float, float] | None:
    spacing = getattr(data, "PixelSpacing", None)
    step = getattr(data, "SpacingBetweenSlices", None) or getattr(data, "SliceThickness", None)
    if not spacing or not step:
        return None
    return float(step), float(spacing[0]), float(spacing[1])


def _read_file(path: Path) -> tuple[Any, NDArray[Any]]:
    """The header and the rescaled values of one file: (H, W), (H, W, 3) or (frames, H, W)."""
    pydicom = _pydicom()
    with _quiet_and_named(path):
        data = pydicom.dcmread(path)
    if "PixelData" not in data and "FloatPixelData" not in data and "DoubleFloatPixelData" not in data:
        raise _without_pixels(path)
    syntax = data.file_meta.TransferSyntaxUID if "TransferSyntaxUID" in data.file_meta else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = data.pixel_array
            if getattr(data, "PhotometricInterpretation", "") == "PALETTE COLOR":
                values = pydicom.pixels.apply_color_lut(values, data)
                if values.dtype != np.uint8:
                    values = (values >> 8).astype(np.uint8)
            elif int(getattr(data, "SamplesPerPixel", 1)) == 1:
                values = pydicom.pixels.apply_modality_lut(values, data)
    except (RuntimeError, NotImplementedError) as error:
        if syntax is None or not syntax.is_compressed:
            raise DataError(f"{path}: its pixels cannot be read: {error}") from error
        raise DataError(
            f"{path} is compressed as {syntax.name} ({syntax}), for which no codec is installed:"
            " pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or save it uncompressed"
        ) from error
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, OSError, EOFError) as error:
        raise DataError(f"{path}: its pixels cannot be read: {error}") from error
    return data, values


@functools.lru_cache(maxsize=200_000)
def _header(path: Path) -> Any:
    """What a file says of itself, without its pixels; only the entries that are asked for here."""
    wanted = (
        "PatientID SeriesInstanceUID Modality Rows Columns NumberOfFrames SamplesPerPixel"
        " PhotometricInterpretation InstanceNumber ImagePositionPatient ImageOrientationPatient PixelSpacing"
    )
    with _quiet_and_named(path):
        return _pydicom().dcmread(path, stop_before_pixels=True, specific_tags=wanted.split())


@contextmanager
def _quiet_and_named(path: Path) -> Iterator[None]:
    """Files of real scanners break small rules, which pydicom warns of: none changes a pixel."""
    pydicom = _pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise DataError(explain_impostor(path) or f"{path} is no DICOM file that can be read: {error}") from error


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise DataError("reading DICOM needs pydicom: pip install 'raypatch[medical]'") from error
    return pydicom


def _without_pixels(path: Path) -> DataError:
    kind = str(getattr(_header(path), "Modality", "") or "unknown")
    return DataError(f"{path} is DICOM without pixels (modality {kind}), such as a report or a plan: leave it out")
