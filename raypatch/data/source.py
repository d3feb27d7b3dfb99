"""Where a dataset comes from: found on disk, checked, loaded; made images need no file."""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from raypatch.data import phantom
from raypatch.data.catalog import SPLITS, DatasetInfo, Split, dataset_info
from raypatch.data.layout.npz import (
    DataError,
    inspect_masks,
    inspect_npz,
    read_fold_rows,
    read_images_and_masks,
    read_split,
    read_split_labels,
    read_split_masks,
    read_split_texts,
)
from raypatch.machine.environment import home
from raypatch.storage.own_files import OWN_FILE, locate_own_file
from raypatch.storage.reading import file_digest

Found = TypeVar("Found")


@dataclass(frozen=True)
class Images:
    """One split.

    images: (N, H, W), (N, H, W, 3) or (N, D, H, W) uint8.
    labels: (N,) class numbers or (N, L) of 0 and 1, int64; or masks (N, H, W) of class numbers, uint8.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.uint8]


def data_folder(data_dir: Path | None = None) -> Path:
    """The folder of the .npz files: the argument, else $MEDMNIST_ROOT,
    else the medmnist package's ~/.medmnist.
    """
    if data_dir is None and "MEDMNIST_ROOT" not in os.environ:
        return home() / ".medmnist"
    return (data_dir or Path(os.environ["MEDMNIST_ROOT"] or "~/.medmnist")).expanduser()


def locate(
    dataset: str,
    *,
    data_dir: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> Path:
    """Return the file of a dataset: by canonical name in the data folder,
    or by file:STEM@DIGEST in `files`.

    A name stands for the official bytes and an id for the digest's, so both are checked, once per
    process and file. Raises DataError when the file is absent or another one.
    """
    if OWN_FILE.fullmatch(dataset):
        try:
            return locate_own_file(dataset, files or {}, option="--dataset")
        except ValueError as error:
            raise DataError(str(error)) from error
    info = dataset_info(dataset)
    if info.made_up:
        raise DataError(f"{info.name} is made in memory: there is no file to fetch or verify")
    path = data_folder(data_dir) / f"{info.name}.npz"
    if not path.exists():
        raise DataError(
            f"no {path}: `raypatch data fetch {info.name}` downloads it. {by_hand(info, path)}",
        )
    # Seconds for a large file, and every trial asks.
    found = _once(md5_of, path)
    if found != info.md5:
        raise DataError(
            f"{path} is not the official {info.name}: its MD5 is {found}, not {info.md5}."
            " To have the official file, rename or remove this one and run"
            f" `raypatch data fetch {info.name}`; to use a changed file on purpose,"
            f" give its path as your own data: `raypatch run` and --dataset {path}"
        )
    return path


def describe(
    dataset: str,
    *,
    masks: bool = False,
    data_dir: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> DatasetInfo:
    """Return the facts of a dataset: from the catalog for a name (no file needed),
    inspected for an own file.

    masks: as a segmentation has them, its classes being those of the masks. Raises DataError for an
    own file that is absent, changed or not in MedMNIST's layout, and for a dataset without masks.
    """
    if not OWN_FILE.fullmatch(dataset):
        info = dataset_info(dataset)
        if masks and info.made_up and info.dimensions == 2:
            return replace(info, task="segmentation", classes=phantom.MASK_CLASSES)
        if masks:
            raise DataError(
                f"{dataset} has no masks; a segmentation needs own images with masks: `raypatch data pack` makes them"
                " of a folder with images/ and masks/"
            )
        return info
    # A study of thousands of trials asks for each of them, several times.
    found = _once(inspect_masks if masks else inspect_npz, locate(dataset, data_dir=data_dir, files=files))
    return replace(found, name=dataset)


def load_split(
    dataset: str,
    split: Split,
    *,
    masks: bool = False,
    fold: int | None = None,
    data_dir: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> Images:
    """Load one split into memory; only reads, so the data folder may be read-only.

    masks: in place of labels. fold: of a file with folds, which one is the test (see
    `read_fold_rows`); None takes the splits as they are stored. Raises DataError when the file is
    absent, damaged, or not the one that the name or id stands for, or has no such fold.
    """
    info = describe(dataset, masks=masks, data_dir=data_dir, files=files)
    if info.made_up:
        _refuse_fold(dataset, fold)
        return Images(*(phantom.make_masks if masks else phantom.make_split)(info, split))
    path = locate(dataset, data_dir=data_dir, files=files)
    read = read_images_and_masks if masks else read_split
    if fold is None:
        return Images(*read(path, split))
    parts = []
    for stored, rows in read_fold_rows(path, split, fold).items():
        images, labels = read(path, stored)
        parts.append((images[rows], labels[rows]))
    images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Images(images, labels)


def load_labels(
    dataset: str,
    split: Split,
    *,
    fold: int | None = None,
    data_dir: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> NDArray[np.int64]:
    """Load the labels of one split without its images: (N,) class numbers or (N, L) of 0 and 1.

    Raises DataError as load_split.
    """
    info = describe(dataset, data_dir=data_dir, files=files)
    if info.made_up:
        _refuse_fold(dataset, fold)
        return phantom.make_split(info, split)[1]
    path = locate(dataset, data_dir=data_dir, files=files)
    if fold is None:
        return read_split_labels(path, split)
    parts = []
    for stored, rows in read_fold_rows(path, split, fold).items():
        parts.append(read_split_labels(path, stored)[rows])
    return np.concatenate(parts)


def load_masks(
    dataset: str,
    split: Split,
    *,
    fold: int | None = None,
    data_dir: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> NDArray[np.uint8] | None:
    """Load the masks of one split, a class number per pixel or voxel: (N, H, W) or (N, D, H, W), in the geometry
    of their images; None where the data has none.

    Raises DataError as load_split, and for masks that do not fit their images.
    """
    if not OWN_FILE.fullmatch(dataset):  # the catalog's files have none
        return None
    path = locate(dataset, data_dir=data_dir, files=files)
    if fold is None:
        return read_split_masks(path, split)
    parts = []
    for stored, rows in read_fold_rows(path, split, fold).items():
        masks = read_split_masks(path, stored)
        if masks is None:
            return None
        parts.append(masks[rows])
    return np.concatenate(parts)


def load_index(
    dataset: str,
    split: Split,
    count: int,
    *,
    fold: int | None = None,
    data_dir: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> NDArray[np.int64]:
    """Return by which number each of the `count` images of a split is known, (N,).

    It is its place in the stored split, with a fold that in train, val and test one after the
    other, which no two folds share. Raises DataError as `load_split`.
    """
    if fold is None:
        return np.arange(count)
    path = locate(dataset, data_dir=data_dir, files=files)
    counts = describe(dataset, data_dir=data_dir, files=files).counts
    places = []
    start = 0
    for rows, images in zip(read_fold_rows(path, split, fold).values(), counts, strict=True):
        places.append(rows + start)
        start += images
    return np.concatenate(places)


def load_texts(
    dataset: str,
    what: Literal["ids", "patients"],
    split: Split,
    *,
    fold: int | None = None,
    data_dir: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> NDArray[np.str_] | None:
    """Load what each image is called, or who the patient on it is, as text; None where the data does not say.

    With a fold it is that of all images of the file, train, val and test one after the other: what
    `load_index` counts in either case. Raises DataError as `load_split`.
    """
    if not OWN_FILE.fullmatch(dataset):  # the catalog's files do not say
        return None
    path = locate(dataset, data_dir=data_dir, files=files)
    return read_split_texts(path, SPLITS if fold is not None else (split,), what)


def _refuse_fold(dataset: str, fold: int | None) -> None:
    if fold is not None:
        raise DataError(f"{dataset} has no folds; leave fold={fold} out, or pack own images with --folds")


def by_hand(info: DatasetInfo, path: Path) -> str:
    """Say how an official file gets to its place without a network."""
    return (
        f"Without a network: put {path.name} (MD5 {info.md5}) into {path.parent},"
        " or name the folder that has it by --data-dir or $MEDMNIST_ROOT"
    )


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, by which medmnist names the official ones."""
    return file_digest(path, hashlib.md5(usedforsecurity=False))


def _once(compute: Callable[[Path], Found], path: Path) -> Found:
    """Return `compute(path)`, computed once per process while the file stays as it is."""
    try:
        state = path.stat()
        found: Found = _of_state(compute, path, state.st_size, state.st_mtime_ns)
        return found
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


@functools.cache
def _of_state(compute: Callable[[Path], Any], path: Path, _size: int, _mtime_ns: int) -> Any:
    return compute(path)
