"""The packed file, written member by member in bounded memory, the same bytes for the same content."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_PART = 8 << 20
"""Bytes that are compressed at once."""


class NpzWriter:
    """An .npz that grows; close it before it is moved to its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Level 1: images that compress do so at it, and the others cost time alone.
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True, compresslevel=1)

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Add an array that lies in memory."""
        self._write(name, values.dtype, values.shape, iter([values]))

    def add_rows(
        self, name: str, source: NDArray[np.uint8], rows: NDArray[np.int64], lookup: NDArray[np.uint8] | None = None
    ) -> None:
        """Add `source[rows]`, some rows at a time. lookup: what each value becomes, (256,)."""
        step = max(1, _PART // max(1, source[:1].nbytes))
        parts = (source[rows[start : start + step]] for start in range(0, len(rows), step))
        if lookup is not None:
            parts = (lookup[part] for part in parts)
        self._write(name, source.dtype, (len(rows), *source.shape[1:]), parts)

    def close(self) -> None:
        """Finish the file, and see it on disk."""
        self._zip.close()
        with self._path.open("rb") as stream:
            os.fsync(stream.fileno())

    def _write(self, name: str, dtype: Any, shape: tuple[int, ...], parts: Iterator[NDArray[Any]]) -> None:
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        # Opened by name, a member has no time of its own: the same content is the same file.
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as stream:
            npy.write_array_header_1_0(stream, header)
            for part in parts:
                stream.write(np.ascontiguousarray(part).tobytes())
