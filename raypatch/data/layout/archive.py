"""An open .npz whose arrays are checked as they are taken out, and never unpickled."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS
from raypatch.storage.impostors import explain_impostor
from raypatch.storage.reading import Told

_BROKEN = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether it is in Fortran's order, and dtype."""

_HEADER_READERS: dict[tuple[int, int], Callable[..., _Header]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


class DataError(ValueError):
    """A dataset is missing, damaged or not in the layout that raypatch reads;
    the message says the way out.
    """


class Archive:
    """An open .npz. Each method raises DataError naming the file and the key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(
                explain_impostor(path)
                or f"{path} is no .npz archive or is cut off; save it with numpy.savez_compressed, or copy it again"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def error(self, key: str, problem: str) -> DataError:
        """What is wrong with one array, to be raised."""
        return DataError(f"{self._path}: {key} {problem}")

    def __contains__(self, key: str) -> bool:
        return f"{key}.npy" in self._zip.namelist()

    def keys(self) -> list[str]:
        """The names of the arrays, in the file's order."""
        keys = []
        for name in self._zip.namelist():
            if name.endswith(".npy"):
                keys.append(name.removesuffix(".npy"))
        return keys

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of an array, without its data.

        Objects are refused: they would have to be unpickled.
        """
        shape, _, dtype = self._header(key)
        return shape, dtype

    def _header(self, key: str) -> _Header:
        if key not in self:
            needed = ", ".join(f"{split}_images, {split}_labels" for split in SPLITS)
            raise self.error(key, f"is missing; the file needs {needed}")
        try:
            with self._zip.open(f"{key}.npy") as stream:
                shape, by_columns, dtype = _read_header(stream)
                # As Python's integers: a header may announce more than 64 bits can count.
                expected = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
        except _BROKEN as error:
            raise self.error(
                key,
                f"cannot be read ({error}); save or copy the file again",
            ) from error
        # Loading objects runs whatever code their pickle holds.
        if dtype.hasobject:
            way_out = "give all images one shape and a plain dtype"
            if not key.endswith("_images"):
                way_out = "convert it with numpy.array(values.tolist())"
            raise self.error(key, f"is an array of objects, which raypatch never loads; {way_out}")
        if self._zip.getinfo(f"{key}.npy").file_size != expected:
            raise self.error(
                key,
                f"does not hold the {shape} values that it announces; save or copy the file again",
            )
        return shape, by_columns, dtype

    def _told(self, stream: IO[bytes], key: str) -> Told:
        return Told(stream, f"{key} of {self._path.name}", self._zip.getinfo(f"{key}.npy").file_size)

    def array(self, key: str) -> NDArray[Any]:
        """A whole array."""
        self._header(key)
        try:
            with self._zip.open(f"{key}.npy") as stream:
                values: NDArray[Any] = npy.read_array(self._told(stream, key), allow_pickle=False)
        except _BROKEN as error:
            raise self.error(
                key,
                f"cannot be read ({error}); save or copy the file again",
            ) from error
        return values

    def chunks(self, key: str, rows: int) -> Iterator[NDArray[Any]]:
        """An array some rows at a time, so that a large one never lies in memory whole."""
        shape, by_columns, dtype = self._header(key)
        # The rows of an array in Fortran's order are spread over all of the file.
        if by_columns:
            whole = self.array(key)
            for start in range(0, shape[0], rows):
                yield np.ascontiguousarray(whole[start : start + rows])
            return
        row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        try:
            with self._zip.open(f"{key}.npy") as member:
                stream = self._told(member, key)
                # Only to come to the first value: what it says is known from above.
                _read_header(stream)
                for start in range(0, shape[0], rows):
                    count = min(rows, shape[0] - start)
                    content = stream.read(count * row_bytes)
                    yield np.frombuffer(content, dtype).reshape(count, *shape[1:])
        except _BROKEN as error:
            raise self.error(
                key,
                f"cannot be read ({error}); save or copy the file again",
            ) from error


def _read_header(stream: Any) -> _Header:
    """Read what an array is, and leave the stream at its first value."""
    version = npy.read_magic(stream)
    if version not in _HEADER_READERS:
        raise ValueError(f"structured array, .npy version {version}")
    return _HEADER_READERS[version](stream)
