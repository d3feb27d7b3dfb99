"""Reads .npz files in MedMNIST's layout, and says what is wrong with one that is not.

Keys {train,val,test}_{images,labels}; optional in an own file: `class_names` (strings),
`mirror_safe` (one bool), `task` (one string), {train,val,test}_patients (who is on each image;
`_groups` means the same) and {train,val,test}_ids (what each image is called). Beside labels, or in
their place: {train,val,test}_masks, with `mask_names` (see `raypatch.data.layout.masks`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS, DatasetInfo, Split, Task
from raypatch.data.layout.archive import Archive, DataError
from raypatch.data.layout.images import check_images
from raypatch.data.layout.labels import (
    read_class_names,
    read_folds,
    read_labels,
    read_mirror_safe,
    read_patients,
    read_rule,
    read_task,
    read_texts,
)
from raypatch.data.layout.masks import has_only_masks, read_mask_names, read_masks

__all__ = [
    "DataError",
    "count_new_images",
    "inspect_masks",
    "inspect_npz",
    "read_fold_rows",
    "read_images_and_masks",
    "read_new_images",
    "read_split",
    "read_split_labels",
    "read_split_masks",
    "read_split_texts",
]


def inspect_masks(path: Path) -> DatasetInfo:
    """Check the layout of an own .npz with masks and return its facts as a segmentation has them.

    Raises DataError, as `inspect_npz`, also for a file without masks.
    """
    return _inspect(path, masks=True)


def inspect_npz(path: Path) -> DatasetInfo:
    """Check the layout of an own .npz and return its facts;
    images are judged by their headers, not read.

    The task follows from the labels: (N,) or (N, 1) with two classes is binary,
    with more multiclass; (N, L > 1) of 0 and 1 is multilabel, but one-hot labels,
    which have exactly one 1 in each row, are refused unless `task` says multilabel.
    Nothing in the images tells whether a label survives a mirror, so `mirror_safe`
    is False (no flips) unless the file says otherwise with a `mirror_safe` array.
    A file with masks and no labels is one for segmentation.
    Raises DataError naming the file, the key, the rule, the value and the way out.
    """
    return _inspect(path, masks=False)


def _inspect(path: Path, *, masks: bool) -> DatasetInfo:
    with Archive(path) as archive:
        shapes = {split: check_images(archive, f"{split}_images") for split in SPLITS}
        for split in SPLITS:
            read_patients(archive, [split], [shapes[split][0]])
            read_texts(archive, [f"{split}_ids"], [shapes[split][0]])
            if shapes[split][1:] != shapes["train"][1:]:
                raise archive.error(
                    f"{split}_images",
                    f"has images of {shapes[split][1:]}, train_images of {shapes['train'][1:]}",
                )
        task: Task = "segmentation"
        if masks or has_only_masks(archive):
            classes = read_mask_names(archive, shapes)
        else:
            labels = {split: read_labels(archive, split, shapes[split][0]) for split in SPLITS}
            task, count = read_task(archive, labels)
            classes = read_class_names(archive, count)
        in_colour = shapes["train"][-1] == 3
        return DatasetInfo(
            name=path.stem,
            task=task,
            classes=classes,
            channels=3 if in_colour else 1,
            dimensions=3 if len(shapes["train"]) == 4 and not in_colour else 2,
            size=shapes["train"][1],
            counts=(shapes["train"][0], shapes["val"][0], shapes["test"][0]),
            mirror_safe=read_mirror_safe(archive),
            folds=_count_folds(archive, shapes),
            rule=read_rule(archive),
        )


def _count_folds(archive: Archive, shapes: dict[Split, tuple[int, ...]]) -> int:
    folds = [read_folds(archive, split, shapes[split][0]) for split in SPLITS]
    present = [fold for fold in folds if fold is not None]
    if not present:
        return 0
    if len(present) < len(SPLITS):
        raise archive.error("train_folds", "and those of val and test belong together: each split needs its own")
    numbers = np.unique(np.concatenate(present))
    if len(numbers) < 3 or not np.array_equal(numbers, np.arange(len(numbers))):
        raise archive.error("train_folds", f"and the others hold {numbers.tolist()}; number 3 or more folds from 0")
    return len(numbers)


def read_fold_rows(path: Path, split: Split, fold: int) -> dict[Split, NDArray[np.int64]]:
    """Return which rows of each stored split are in `split` when `fold` is the test.

    The fold after it, counted round, is val, the others are train. Raises DataError for a file
    without that fold.
    """
    rows: dict[Split, NDArray[np.int64]] = {}
    with Archive(path) as archive:
        shapes = {each: check_images(archive, f"{each}_images") for each in SPLITS}
        count = _count_folds(archive, shapes)
        if not 0 <= fold < count:
            way_out = f"it has 0 to {count - 1}" if count else "it has none: pack it with --folds"
            raise DataError(f"{path} has no fold {fold}; {way_out}")
        for each in SPLITS:
            number = read_folds(archive, each, shapes[each][0])
            in_test, in_val = number == fold, number == (fold + 1) % count
            chosen = {"test": in_test, "val": in_val, "train": ~(in_test | in_val)}[split]
            rows[each] = np.flatnonzero(chosen)
    return rows


def read_split(path: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one split: images (N, H, W), (N, H, W, 3) or (N, D, H, W) and labels (N,) or (N, L).

    Raises DataError when this split's arrays are damaged or not in the layout.
    """
    with Archive(path) as archive:
        count = check_images(archive, f"{split}_images")[0]
        # Contiguous: torch takes no array in Fortran's order as it lies.
        images = np.ascontiguousarray(archive.array(f"{split}_images"))
        return images, read_labels(archive, split, count)


def read_images_and_masks(path: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read one split: images as `read_split` and masks (N, H, W) of class numbers. Raises DataError."""
    with Archive(path) as archive:
        shape = check_images(archive, f"{split}_images")
        images = np.ascontiguousarray(archive.array(f"{split}_images"))
        return images, read_masks(archive, split, shape)


def read_split_labels(path: Path, split: Split) -> NDArray[np.int64]:
    """Read the labels of one split without its images: (N,) or (N, L). Raises DataError."""
    with Archive(path) as archive:
        return read_labels(archive, split, check_images(archive, f"{split}_images")[0])


def read_split_masks(path: Path, split: Split) -> NDArray[np.uint8] | None:
    """Read the masks of one split, (N, *spatial) as its images; None where the file has none.

    Raises DataError for masks of another kind or shape.
    """
    with Archive(path) as archive:
        if f"{split}_masks" not in archive:
            return None
        return read_masks(archive, split, check_images(archive, f"{split}_images"))


def read_split_texts(path: Path, splits: Sequence[Split], what: Literal["ids", "patients"]) -> NDArray[np.str_] | None:
    """Read `{split}_ids` or `{split}_patients` of some splits as text, (N,); None where the file does not say."""
    with Archive(path) as archive:
        counts = _counts(archive, splits)
        if what == "patients":
            return read_patients(archive, splits, counts)
        return read_texts(archive, [f"{split}_ids" for split in splits], counts)


def _counts(archive: Archive, splits: Sequence[Split]) -> list[int]:
    return [check_images(archive, f"{split}_images")[0] for split in splits]


def read_new_images(path: Path, split: Split) -> tuple[str, NDArray[np.uint8]]:
    """Read images that need no labels: those of `split`, else the array `images`,
    else the file's only array.

    Returns also what to call them: the split, or `images`. Raises
    DataError when there are none of these.
    """
    with Archive(path) as archive:
        key, name = _find_new_images(archive, path, split)
        check_images(archive, key)
        return name, np.ascontiguousarray(archive.array(key))


def count_new_images(path: Path, split: Split) -> tuple[str, int]:
    """Return what `read_new_images` would call the images, and how many there are, without reading them."""
    with Archive(path) as archive:
        key, name = _find_new_images(archive, path, split)
        return name, check_images(archive, key)[0]


def _find_new_images(archive: Archive, path: Path, split: Split) -> tuple[str, str]:
    """The array of `read_new_images`, and what to call its images."""
    keys = archive.keys()
    if f"{split}_images" in keys:
        return f"{split}_images", str(split)
    if "images" in keys:
        return "images", "images"
    if len(keys) == 1 and not keys[0].endswith("_images"):
        return keys[0], "images"
    others = [other for other in SPLITS if f"{other}_images" in keys]
    way_out = f"it has those of {', '.join(others)}: choose with --split" if others else "name them so"
    raise DataError(f"{path} holds no {split}_images and no images; {way_out}")
