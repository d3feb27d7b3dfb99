"""Segmentation masks: a class number per pixel, in the geometry of their image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from raypatch.data.inputs.reading import read_scan
from raypatch.data.inputs.scan import ImageFiles, format_of
from raypatch.data.layout.archive import DataError


def read_mask(
    mask: ImageFiles, edges: Sequence[int], *, dimensions: int, frame: int | None = None
) -> NDArray[np.uint8]:
    """Read a mask as (*edges) uint8, turned as its image is.

    edges: of its image. Raises DataError for another shape, values that are no whole numbers of 0
    to 255, and masks in colour.
    """
    if format_of(mask.path) == "picture":
        values = _read_picture(mask)
    else:
        values = read_scan(mask, dimensions=dimensions, frame=frame).values
    if values.shape != tuple(edges):
        raise DataError(f"{mask.path} is a mask of {values.shape}, its image is {tuple(edges)}; they must be alike")
    whole = np.rint(values)
    if values.size and (not np.array_equal(whole, values) or whole.min() < 0 or whole.max() > 255):
        raise DataError(f"{mask.path} is a mask with values that are no class numbers of 0 to 255")
    classes: NDArray[np.uint8] = whole.astype(np.uint8)
    return classes


def _read_picture(mask: ImageFiles) -> NDArray[np.generic]:
    try:
        with mask.path.open("rb") as stream, Image.open(stream) as picture:
            picture.load()
            upright = ImageOps.exif_transpose(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{mask.path} is no mask that can be read: {error}") from error
    # The numbers of a palette are the classes, whatever their colours.
    if upright.mode in ("1", "L", "P", "F") or upright.mode.startswith("I"):
        return np.array(upright)
    values = np.array(upright.convert("RGB"))
    if (values != values[..., :1]).any():
        raise DataError(f"{mask.path} is a mask in colour; save it as class numbers, grey or with a palette")
    return values[..., 0]
