"""The packed file, written member by member in bounded memory, the same bytes for the same content."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS
from raypatch.data.inputs.rule import InputRule
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.decode import Spool
from raypatch.data.pack.options import PackOptions
from raypatch.data.pack.split.labels import Labels
from raypatch.data.pack.split.splits import Splits

MOST_MASK_VALUES = 64
"""Values in masks above which they are no classes, but the grey of a JPEG."""

_PART = 8 << 20
"""Bytes that are compressed at once."""


@dataclass(frozen=True)
class Pixels:
    """Images that were read. rows: (N,) of the spool, those that are kept. mask_values: all that masks hold."""

    spool: Spool
    rows: NDArray[np.int64]
    rule: InputRule
    mask_values: set[int]


@dataclass(frozen=True)
class Cases:
    """What is known of the N kept images. ids: what each is called. patients: None where nobody is known."""

    ids: Sequence[str]
    labels: Labels
    patients: Sequence[str] | None
    splits: Splits


def write_dataset(path: Path, pixels: Pixels, cases: Cases, options: PackOptions) -> None:
    """Write the packed .npz, split by split. Raises DataError for masks that hold no classes."""
    lookup = _mask_lookup(pixels.mask_values)
    images, masks = pixels.spool.images(), pixels.spool.masks()
    columns = _columns(cases)
    writer = NpzWriter(path)
    for number, split in enumerate(SPLITS):
        members = np.flatnonzero(cases.splits.part == number)
        writer.add_rows(f"{split}_images", images, pixels.rows[members])
        if masks is not None:
            writer.add_rows(f"{split}_masks", masks, pixels.rows[members], lookup)
        for name, values in columns.items():
            writer.add(f"{split}_{name}", values[members])
    labels = cases.labels
    if labels.numbers is not None:
        writer.add("class_names", np.array(labels.names))
    writer.add("rule", np.array(pixels.rule.model_dump_json()))
    if labels.numbers is not None and labels.numbers.shape[1] > 1:
        writer.add("task", np.array("multilabel"))
    elif labels.numbers is not None and options.ordinal:
        writer.add("task", np.array("ordinal"))
    writer.add("mirror_safe", np.array(options.mirror_safe))
    writer.close()


def _columns(cases: Cases) -> dict[str, NDArray[Any]]:
    """What stands beside each image, by the name that its array has after the split's."""
    columns: dict[str, NDArray[Any]] = {"ids": np.array(cases.ids)}
    if cases.labels.numbers is not None:
        columns["labels"] = cases.labels.numbers
    if cases.patients is not None:
        columns["patients"] = np.array(cases.patients)
    if cases.splits.fold is not None:
        columns["folds"] = cases.splits.fold
    return columns


def _mask_lookup(values: set[int]) -> NDArray[np.uint8]:
    """What each value of a mask becomes: 0 and one other, such as 255, are 0 and 1; class numbers stay."""
    if len(values) > MOST_MASK_VALUES:
        raise DataError(
            f"the masks hold {len(values)} values, too many for classes: are they JPEGs? Save them as PNG with"
            " a class number in each pixel"
        )
    lookup = np.arange(256, dtype=np.uint8)
    others = sorted(values - {0})
    if len(others) == 1:
        lookup[others[0]] = 1
    return lookup


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
