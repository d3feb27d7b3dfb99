"""Images that lie as rows of one array in an .h5 file."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from raypatch.data.inputs.scan import Look, Scan
from raypatch.data.layout.archive import DataError
from raypatch.storage.impostors import explain_impostor


@functools.lru_cache(maxsize=8)
def open_array(path: Path) -> Any:
    """Return the only array of an .h5 file, kept open: its rows are read one by one. Raises DataError."""
    try:
        import h5py
    except ImportError as error:
        raise DataError("reading .h5 files needs h5py: pip install 'raypatch[medical]'") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(explain_impostor(path) or f"{path} is no .h5 file that can be read: {error}") from error
    arrays = [each for each in file.values() if isinstance(each, h5py.Dataset)]
    if len(arrays) != 1:
        raise DataError(f"{path} holds {len(arrays)} arrays ({', '.join(file)}); one is needed, as PatchCamelyon's has")
    return arrays[0]


def look_at_row(path: Path) -> Look:
    """See what the images of an .h5 file are, by the shape of its array."""
    array = open_array(path)
    shape = array.shape[1:]
    in_colour = len(shape) == 3 and shape[-1] == 3
    if array.dtype != np.uint8 or not (in_colour or len(shape) == 2):
        raise DataError(f"{path} holds {array.dtype} of shape {array.shape}; (N, H, W) or (N, H, W, 3) uint8 is needed")
    return Look(shape[:2], 3 if in_colour else 1, eight_bits=True)


def read_row(path: Path, row: int) -> Scan:
    """Read one image, (H, W) or (H, W, 3) uint8."""
    try:
        values = open_array(path)[row]
        return Scan(values, window=(0.0, 255.0), in_colour=values.ndim == 3)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: image {row} cannot be read: {error}") from error
