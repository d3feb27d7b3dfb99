"""New images to predict on: an .npz, a folder of pictures, or NIfTI volumes, as the uint8 that models are fed with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.data.augment import channels_first, resize_images
from raypatch.data.catalog import Split
from raypatch.data.npz import DataError, read_split

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
Resize = Literal["bilinear", "nearest", "pad"]
VOLUMES = (".nii", ".nii.gz")


def read_inputs(
    path: Path, split: Split, *, dimensions: int, channels: int, image_size: int, resize: Resize
) -> tuple[list[str], torch.Tensor]:
    """Return names and uint8 images (N, C, *spatial) at image_size.

    path: an .npz in MedMNIST's layout (of which `split` is taken), a folder of pictures or of NIfTI volumes, or one
    such file. Pictures are read as grey or RGB, as the model was trained. The grey values of a volume are stretched so
    that its lowest is 0 and its highest 255. What is not square or cubic is stretched to it.
    Raises DataError for a path that holds nothing of the kind.
    """
    if path.suffix == ".npz":
        images = read_split(path, split)[0]
        names = [f"{split}:{index}" for index in range(len(images))]
        found = (3 if images.ndim == 4 and images.shape[-1] != 3 else 2, 3 if images.shape[-1] == 3 else 1)
        if found != (dimensions, channels):
            raise DataError(
                f"{path} has {found[0]}D images of {found[1]} channel(s); the model takes {dimensions}D of {channels}"
            )
        return names, resize_images(channels_first(images, dimensions=dimensions), image_size, resize)
    files = _list_files(path, VOLUMES if dimensions == 3 else PICTURES)
    read = _read_volume if dimensions == 3 else _read_picture
    tensors = [
        resize_images(channels_first(read(file, channels)[None], dimensions=dimensions), image_size, resize)
        for file in files
    ]
    return [file.name for file in files], torch.cat(tensors)


def _list_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in candidates if file.is_file() and file.name.lower().endswith(tuple(suffixes))]
    if not files:
        raise DataError(f"{path} holds no {', '.join(suffixes)} file; give those, a folder of them, or an .npz")
    return files


def _read_picture(path: Path, channels: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("L" if channels == 1 else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} is no picture that can be read: {error}") from error


def _read_volume(path: Path, channels: int) -> NDArray[np.uint8]:
    """(D, H, W); NIfTI stores the axes as x, y, z."""
    if channels != 1:
        raise DataError("volumes are grey: the model must have been trained on grey volumes")
    try:
        import nibabel
    except ImportError as error:
        raise DataError("reading .nii files needs nibabel: pip install 'raypatch[nifti]'") from error
    try:
        values = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    except (OSError, ValueError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
        raise DataError(f"{path} is no NIfTI volume that can be read: {error}") from error
    if values.ndim != 3 or not np.isfinite(values).all():
        raise DataError(f"{path} must hold one volume of finite values, not shape {values.shape}")
    low, high = float(values.min()), float(values.max())
    stretched: NDArray[np.uint8] = np.rint(255 * (values - low) / max(high - low, 1e-9)).astype(np.uint8)
    return stretched.transpose(2, 1, 0).copy()
