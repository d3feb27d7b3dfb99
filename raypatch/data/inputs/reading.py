"""Files as images: the one reader of packing and of prediction."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.data.batches.augment import channels_first
from raypatch.data.batches.resize import resize_images
from raypatch.data.catalog import Split
from raypatch.data.inputs.dicom import group_series, look_at_dicom, read_dicom
from raypatch.data.inputs.hdf5 import look_at_row, read_row
from raypatch.data.inputs.pictures import look_at_picture, read_picture
from raypatch.data.inputs.rule import InputRule, Intensity, Whites, to_levels
from raypatch.data.inputs.scan import DICOM, PICTURES, VOLUMES, ImageFiles, Look, Scan, format_of, is_hidden
from raypatch.data.inputs.volumes import look_at_nifti, read_nifti
from raypatch.data.layout.npz import DataError, read_new_images
from raypatch.trial_fields.data import Resize

_Read = TypeVar("_Read")

AS_SHOWN = Intensity(kind="display")
WHOLE_RANGE = Intensity(kind="percentile", low=0, high=100)
"""For volumes of runs whose data was not packed: the lowest value is black, the highest white."""


def look_at(image: ImageFiles) -> Look:
    """See what an image is before it is read: its header, mostly. Raises DataError."""
    kind = format_of(image.path)
    if kind == "picture":
        return look_at_picture(image.path)
    if kind == "nifti":
        return look_at_nifti(image.path)
    if kind == "dicom":
        return look_at_dicom(image.files)
    return look_at_row(image.path)


def read_scan(image: ImageFiles, *, dimensions: int, frame: int | None = None) -> Scan:
    """Read an image as its file has it. Raises DataError naming the file."""
    kind = format_of(image.path)
    if kind == "picture":
        scan = read_picture(image.path)
    elif kind == "nifti":
        scan = read_nifti(image.path, dimensions=dimensions, frame=frame)
    elif kind == "dicom":
        scan = read_dicom(image.files, dimensions=dimensions, frame=frame)
    else:
        scan = read_row(image.path, image.row or 0)
    if scan.values.ndim - scan.in_colour != dimensions:
        raise DataError(f"{image.path} holds {scan.values.ndim}D values, where {dimensions}D images are needed")
    return scan


def read_image(image: ImageFiles, rule: InputRule, whites: Whites) -> NDArray[np.uint8]:
    """Read an image by the rule. Raises DataError naming the file."""
    return named(image, lambda: rule.apply(read_scan(image, dimensions=rule.dimensions, frame=rule.frame), whites))


def read_inputs(
    path: Path,
    split: Split,
    *,
    dimensions: int,
    channels: int,
    image_size: int,
    resize: Resize,
    rule: InputRule | None = None,
) -> tuple[list[str], torch.Tensor]:
    """Return names and uint8 images (N, C, *spatial) at image_size.

    path: an .npz (its `split`, or its `images`; labels are not looked at), a folder of pictures,
    NIfTI volumes or DICOM files, or one such file. Hidden files are left out. rule: by which the
    training images were packed; None takes pictures as a screen shows them and volumes from their
    lowest to their highest value, and stretches what is not square or cubic. Raises DataError for a
    path that holds nothing of the kind, and for a file that has no one meaning.
    """
    if path.suffix == ".npz":
        return _read_npz(path, split, dimensions, channels, image_size, resize)
    images = list_images(path, dimensions)
    # One after the other: the files may have different sizes, and be large before they are resized.
    tensors = []
    for values in read_listed(images, dimensions, channels, rule):
        tensor = channels_first(values[None], dimensions=dimensions)
        tensors.append(resize_images(tensor, image_size, resize))
    sizes = {tuple(tensor.shape[2:]) for tensor in tensors}
    if len(sizes) > 1:
        raise DataError(f"resize={resize} takes images of one size, and {path} has {sorted(sizes)}: bring them to one")
    return [image.name for image in images], torch.cat(tensors)


def read_listed(
    images: Sequence[ImageFiles], dimensions: int, channels: int, rule: InputRule | None
) -> Iterable[NDArray[np.uint8]]:
    """Yield images one by one: by the rule, or without one in their own shape. Raises DataError as `read_inputs`."""
    if dimensions == 3 and channels == 3:
        raise DataError("volumes are grey: the model must have been trained on grey volumes")
    whites = Whites(rule.intensity.white if rule else None)
    intensity = rule.intensity if rule else (AS_SHOWN if dimensions == 2 else WHOLE_RANGE)
    if intensity.kind == "display":
        # All are looked at before one is read: white is one value for the whole folder.
        note_whites(images, whites)
    for image in images:
        if rule is not None:
            yield read_image(image, rule, whites)
        else:
            yield _as_it_lies(image, intensity, dimensions, channels, whites)


def note_whites(images: Iterable[ImageFiles], whites: Whites) -> None:
    """Look for what is white in deep pictures. Raises DataError where nothing says it."""
    for image in images:
        if format_of(image.path) == "picture":
            deep = look_at(image).deep
            if deep is not None:
                whites.note(*deep, image.path)
    whites.found()


def _as_it_lies(
    image: ImageFiles, intensity: Intensity, dimensions: int, channels: int, whites: Whites
) -> NDArray[np.uint8]:
    scan = read_scan(image, dimensions=dimensions)
    levels = named(image, lambda: to_levels(scan, intensity, channels, whites))
    rounded: NDArray[np.uint8] = np.rint(levels).astype(np.uint8)
    return rounded


def named(image: ImageFiles, work: Callable[[], _Read]) -> _Read:
    """Do it; a DataError that names no file gets this one's."""
    try:
        return work()
    except DataError as error:
        text = str(error)
        if str(image.path.parent) in text:
            raise
        raise DataError(f"{image.path} {text}") from error


def _read_npz(
    path: Path, split: Split, dimensions: int, channels: int, image_size: int, resize: Resize
) -> tuple[list[str], torch.Tensor]:
    key, images = read_new_images(path, split)
    in_colour = images.shape[-1] == 3
    has_dimensions = 3 if images.ndim == 4 and not in_colour else 2
    has_channels = 3 if in_colour else 1
    if (has_dimensions, has_channels) != (dimensions, channels):
        raise DataError(
            f"{path} has {has_dimensions}D images of {has_channels} channel(s);"
            f" the model takes {dimensions}D of {channels}"
        )
    names = [f"{key}:{index}" for index in range(len(images))]
    tensor = channels_first(images, dimensions=dimensions)
    return names, resize_images(tensor, image_size, resize)


def list_images(path: Path, dimensions: int) -> list[ImageFiles]:
    """The images in a folder, or of one file, sorted; files of a DICOM series are one volume.

    What is hidden is left out. Raises DataError where there is none.
    """
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    plain, dicom = [], []
    wanted = ("picture", "nifti") if dimensions == 2 else ("nifti",)
    for file in candidates:
        # The one file that is named itself is meant, whatever its name.
        if not file.is_file() or (path.is_dir() and is_hidden(file)):
            continue
        kind = format_of(file)
        if kind == "dicom":
            dicom.append(file)
        elif kind in wanted:
            plain.append(ImageFiles(file.name, (file,)))
    root = path if path.is_dir() else path.parent
    series = group_series(dicom, root) if dimensions == 3 else []
    pictures = [ImageFiles(file.name, (file,)) for file in dicom] if dimensions == 2 else []
    images = plain + pictures + series
    if not images:
        suffixes = (*PICTURES, *VOLUMES, *DICOM) if dimensions == 2 else (*VOLUMES, *DICOM)
        raise DataError(f"{path} holds no {', '.join(suffixes)} file; give those, a folder of them, or an .npz")
    return sorted(images, key=lambda image: image.name)
