"""New images to predict on: an .npz, a folder of pictures, or NIfTI volumes,
as the uint8 that models are fed with.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from raypatch.config import Resize
from raypatch.data.augment import channels_first
from raypatch.data.catalog import Split
from raypatch.data.inputs.pictures import read_pictures
from raypatch.data.inputs.volumes import read_volume
from raypatch.data.npz import DataError, read_new_images
from raypatch.data.resize import resize_images

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii", ".nii.gz")


def read_inputs(
    path: Path, split: Split, *, dimensions: int, channels: int, image_size: int, resize: Resize
) -> tuple[list[str], torch.Tensor]:
    """Return names and uint8 images (N, C, *spatial) at image_size.

    path: an .npz (its `split`, or its `images`; labels are not looked at), a folder of pictures or
    of NIfTI volumes, or one such file. Hidden files are left out. Pictures are read as grey or RGB,
    as the model was trained (see `read_pictures`), volumes as `read_volume` says. What is not
    square or cubic is stretched to it. Raises DataError for a path that holds nothing of the kind,
    and for a file that has no one meaning.
    """
    if path.suffix == ".npz":
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

    files = _list_files(path, VOLUMES if dimensions == 3 else PICTURES)
    read: Iterable[NDArray[Any]]
    if dimensions == 2:
        read = read_pictures(files, channels)
    elif channels == 1:
        read = map(read_volume, files)
    else:
        raise DataError("volumes are grey: the model must have been trained on grey volumes")
    # One after the other: the files may have different sizes, and be large before they are resized.
    tensors = []
    for image in read:
        tensor = channels_first(image[None], dimensions=dimensions)
        tensors.append(resize_images(tensor, image_size, resize))
    sizes = {tuple(tensor.shape[2:]) for tensor in tensors}
    if len(sizes) > 1:
        raise DataError(f"resize={resize} takes images of one size, and {path} has {sorted(sizes)}: bring them to one")
    return [file.name for file in files], torch.cat(tensors)


def _list_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of that kind in a folder, or the one file, sorted;
    what begins with a dot is hidden and left out.
    """
    candidates = [path]
    if path.is_dir():
        candidates = sorted(path.iterdir())
    files = []
    for file in candidates:
        # Hidden in a folder: what a Mac leaves beside each file. The one that is named itself is meant.
        hidden = path.is_dir() and file.name.startswith(".")
        if file.is_file() and not hidden and file.name.lower().endswith(tuple(suffixes)):
            files.append(file)
    if not files:
        raise DataError(f"{path} holds no {', '.join(suffixes)} file; give those, a folder of them, or an .npz")
    return files
