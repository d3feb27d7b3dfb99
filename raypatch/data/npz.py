"""Reads .npz files in MedMNIST's layout, and says what is wrong with one that is not.

Keys {train,val,test}_{images,labels}; optional in an own file: `class_names` (strings) and `mirror_safe` (one bool).
"""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS, DatasetInfo, Split, Task

_BROKEN = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
_HEADER_READERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


class DataError(ValueError):
    """A dataset is missing, damaged or not in the layout that raypatch reads; the message says the way out."""


def inspect_npz(path: Path) -> DatasetInfo:
    """Check the layout of an own .npz and return its facts; images are judged by their headers, not read.

    The task follows from the labels: (N,) or (N, 1) with two classes is binary, with more multiclass; (N, L > 1) of
    0 and 1 is multilabel. Nothing in the images tells whether a label survives a mirror, so `mirror_safe` is False
    (no flips) unless the file says otherwise with a `mirror_safe` array.
    Raises DataError naming the file, the key, the rule, the value and the way out.
    """
    with _Archive(path) as archive:
        shapes = {split: archive.image_shape(split) for split in SPLITS}
        labels = {split: archive.labels(split, shapes[split][0]) for split in SPLITS}
        for split in SPLITS[1:]:
            if shapes[split][1:] != shapes["train"][1:]:
                raise archive.error(
                    f"{split}_images", f"has images of {shapes[split][1:]}, train_images of {shapes['train'][1:]}"
                )
        task, count = _read_task(archive, labels)
        return DatasetInfo(
            name=path.stem,
            task=task,
            classes=archive.class_names(count),
            channels=3 if shapes["train"][-1] == 3 else 1,
            dimensions=3 if len(shapes["train"]) == 4 and shapes["train"][-1] != 3 else 2,
            size=shapes["train"][1],
            counts=(shapes["train"][0], shapes["val"][0], shapes["test"][0]),
            mirror_safe=archive.mirror_safe(),
        )


def read_split(path: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one split: images (N, H, W), (N, H, W, 3) or (N, D, H, W) and labels (N,) or (N, L).

    Raises DataError when this split's arrays are damaged or not in the layout.
    """
    with _Archive(path) as archive:
        count = archive.image_shape(split)[0]
        return np.ascontiguousarray(archive.array(f"{split}_images")), archive.labels(split, count)


def count_shared_images(path: Path) -> dict[tuple[Split, Split], int]:
    """Count, for each pair of splits, the images of the second that are also in the first, pixel for pixel.

    Anything but 0 means that the second split is not unseen. Reads the whole file. Raises DataError.
    """
    images = {split: [image.tobytes() for image in read_split(path, split)[0]] for split in SPLITS}
    pairs: list[tuple[Split, Split]] = [("train", "val"), ("train", "test"), ("val", "test")]
    seen = {split: set(images[split]) for split in SPLITS}
    return {(a, b): sum(image in seen[a] for image in images[b]) for a, b in pairs}


def _read_task(archive: "_Archive", labels: dict[Split, NDArray[np.int64]]) -> tuple[Task, int]:
    """Return the task and the number of classes that the labels speak of."""
    train = labels["train"]
    for split in SPLITS:
        if labels[split].shape[1:] != train.shape[1:]:
            raise archive.error(
                f"{split}_labels", f"has shape {labels[split].shape} where train_labels has {train.shape}"
            )
    if train.ndim == 2:
        for split in SPLITS:
            if (labels[split] > 1).any():
                raise archive.error(f"{split}_labels", "has several columns, so each must be 0 or 1 (multi-label)")
        return "multilabel", train.shape[1]

    present = np.unique(train)
    count = int(present[-1]) + 1
    if len(present) == 1:
        raise archive.error("train_labels", f"holds only class {present[0]}; at least two classes are needed")
    if len(present) < count:
        absent = int((present != np.arange(len(present))).argmax())
        raise archive.error("train_labels", f"skips class {absent}; number the classes 0 to K-1 and have each in train")
    for split in SPLITS[1:]:
        if labels[split].max() >= count:
            raise archive.error(
                f"{split}_labels",
                f"holds class {labels[split].max()}, out of range: train_labels has classes 0 to {count - 1};"
                " move an image of that class to train or remove the class",
            )
    return "binary" if count == 2 else "multiclass", count


class _Archive:
    """An open .npz whose arrays are checked as they are taken out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(
                f"{path} is no .npz archive or is cut off; save it with numpy.savez_compressed, or copy it again"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def error(self, key: str, problem: str) -> DataError:
        return DataError(f"{self._path}: {key} {problem}")

    def __contains__(self, key: str) -> bool:
        return f"{key}.npy" in self._zip.namelist()

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of an array, without its data. Objects are refused: they would have to be unpickled."""
        if key not in self:
            needed = ", ".join(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))
            raise self.error(key, f"is missing; the file needs {needed}")
        try:
            with self._zip.open(f"{key}.npy") as stream:
                version = npy.read_magic(stream)
                if version not in _HEADER_READERS:
                    raise ValueError(f"structured array, .npy version {version}")
                shape, _, dtype = _HEADER_READERS[version](stream)
                expected = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
        except _BROKEN as error:
            raise self.error(key, f"cannot be read ({error}); save or copy the file again") from error
        if dtype.hasobject:
            raise self.error(
                key, "is an array of objects, which raypatch never loads; give all images one shape and a plain dtype"
            )
        if self._zip.getinfo(f"{key}.npy").file_size != expected:
            raise self.error(key, f"does not hold the {shape} values that it announces; save or copy the file again")
        return shape, dtype

    def array(self, key: str) -> NDArray[Any]:
        self.header(key)
        try:
            with self._zip.open(f"{key}.npy") as stream:
                values: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
        except _BROKEN as error:
            raise self.error(key, f"cannot be read ({error}); save or copy the file again") from error
        return values

    def image_shape(self, split: Split) -> tuple[int, ...]:
        """Shape of a split's images: (N, H, W), (N, H, W, 3) or (N, D, H, W), square or cubic, uint8."""
        key = f"{split}_images"
        shape, dtype = self.header(key)
        if dtype != np.uint8:
            raise self.error(key, f"is {dtype} but must be uint8, 0 to 255; {self._explain_conversion(key, dtype)}")
        if len(shape) < 3 or shape[-1] == 1 or (len(shape) == 5 and shape[-1] == 3) or len(shape) > 4:
            raise self.error(key, f"has shape {shape}; {_explain_layout(shape)}")
        if shape[0] == 0:
            raise self.error(key, "is empty; each of train, val and test needs images")
        edges = shape[1:-1] if len(shape) == 4 and shape[-1] == 3 else shape[1:]
        if len(set(edges)) > 1:
            raise self.error(
                key, f"has images of {' x '.join(map(str, edges))}; all edges must be equal: pad or resize them"
            )
        return shape

    def _explain_conversion(self, key: str, dtype: np.dtype[Any]) -> str:
        if dtype.kind != "f":
            return "scale the values to 0..255 and convert with .astype('uint8')"
        values = self.array(key)
        if not np.isfinite(values).all():
            return "it also holds NaN or infinity: replace those values first, then scale to 0..255 and convert"
        low, high = values.min(initial=0), values.max(initial=0)
        scaled = "images * 255" if low >= 0 and high <= 1 else "(images - images.min()) / np.ptp(images) * 255"
        return f"its values lie in {low:g}..{high:g}: convert with ({scaled}).round().astype('uint8')"

    def labels(self, split: Split, count: int) -> NDArray[np.int64]:
        """A split's labels as (N,) class numbers or (N, L) columns of 0 and 1."""
        key = f"{split}_labels"
        shape, dtype = self.header(key)
        if dtype.kind not in "iu":
            raise self.error(key, f"is {dtype} but must be integer; convert with labels.astype('int64')")
        if len(shape) not in (1, 2) or 0 in shape[1:]:
            raise self.error(key, f"has shape {shape}, must be (N,), (N, 1) or, for multi-label, (N, L)")
        if shape[0] != count:
            raise self.error(key, f"has {shape[0]} rows for {count} images; each image needs one")
        values = self.array(key).astype(np.int64)
        if values.min() < 0:
            raise self.error(key, f"holds {values.min()}, out of range; number the classes 0 to K-1")
        return values.reshape(-1) if values.ndim == 1 or values.shape[1] == 1 else values

    def class_names(self, count: int) -> tuple[str, ...]:
        """Names in label order: from `class_names`, else the class numbers."""
        if "class_names" not in self:
            return tuple(str(number) for number in range(count))
        shape, dtype = self.header("class_names")
        if dtype.kind != "U" or shape != (count,):
            raise self.error("class_names", f"is {dtype} of shape {shape}, must be {count} strings")
        return tuple(map(str, self.array("class_names")))

    def mirror_safe(self) -> bool:
        if "mirror_safe" not in self:
            return False
        shape, dtype = self.header("mirror_safe")
        if dtype.kind != "b" or shape != ():
            raise self.error("mirror_safe", f"is {dtype} of shape {shape}, must be one bool")
        return bool(self.array("mirror_safe"))


def _explain_layout(shape: tuple[int, ...]) -> str:
    if len(shape) == 5 and shape[-1] == 3:
        return "colour volumes are not supported: turn them to grey, (N, D, H, W)"
    if len(shape) in (4, 5) and shape[-1] == 1:
        return "drop the last axis with images[..., 0]"
    return "images must be (N, H, W) grey, (N, H, W, 3) RGB or (N, D, H, W) volumes"
