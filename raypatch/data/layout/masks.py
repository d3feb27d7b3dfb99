"""The rules of masks in an .npz: {train,val,test}_masks, a class number for each pixel, 0 the background."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS, Split
from raypatch.data.layout.archive import Archive
from raypatch.data.layout.labels import check_names

BACKGROUND = "background"


def has_only_masks(archive: Archive) -> bool:
    """Whether a file has masks and no labels at all."""
    has_labels = any(f"{split}_labels" in archive for split in SPLITS)
    return "train_masks" in archive and not has_labels


def read_masks(archive: Archive, split: Split, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A split's masks (N, *spatial) of class numbers. shape: of its images, (N, H, W), (N, H, W, 3) or (N, D, H, W).

    Raises DataError where there are none, and for masks of another size or kind.
    """
    key = f"{split}_masks"
    if key not in archive:
        raise archive.error(
            key,
            "is absent; a segmentation needs masks beside the images of train, val and test: `raypatch data pack`"
            " makes them of a folder with images/ and masks/",
        )
    found, dtype = archive.header(key)
    in_colour = len(shape) == 4 and shape[-1] == 3
    if found != (shape[:-1] if in_colour else shape):
        raise archive.error(
            key, f"has shape {found}, {split}_images has {shape}; each image needs a mask of its own size"
        )
    if dtype.kind not in "biu":
        raise archive.error(key, f"is {dtype} but must be whole numbers: a class number for each pixel")
    values = archive.array(key)
    if values.min() < 0 or values.max() > 255:
        raise archive.error(
            key, f"holds {values.min()} to {values.max()}; number the classes 0 to K-1, 0 the background"
        )
    return np.ascontiguousarray(values.astype(np.uint8))


def read_mask_names(archive: Archive, shapes: Mapping[Split, tuple[int, ...]]) -> tuple[str, ...]:
    """The names of the classes of masks, the background first: from `mask_names`, else by number.

    Every class must occur in train, and no split has one that train lacks. Raises DataError, for
    volumes too.
    """
    if len(shapes["train"]) == 4 and shapes["train"][-1] != 3:
        raise archive.error(
            "train_masks", "is of volumes; a segmentation is of 2D images: pack their slices with --dimensions 2"
        )
    present = {}
    for split in SPLITS:
        present[split] = np.flatnonzero(np.bincount(read_masks(archive, split, shapes[split]).ravel()))
    names = check_names(archive, "mask_names") if "mask_names" in archive else ()
    train = present["train"]
    highest = int(train.max())
    if highest == 0:
        raise archive.error("train_masks", "is background alone; the class to be found must be in some training image")
    count = len(names) or highest + 1
    absent = np.setdiff1d(np.arange(1, count), train)
    if len(absent):
        raise archive.error(
            "train_masks",
            f"has no pixel of class {absent[0]}; number the classes 0 to K-1 and have each in train{_way_out(train)}",
        )
    for split in SPLITS:
        check_range(archive, split, present[split], count)
    return names or default_mask_names(count)


def check_range(archive: Archive, split: Split, present: NDArray[np.integer], count: int) -> None:
    """See that the class numbers that occur in a split's masks are all below `count`. Raises DataError."""
    beyond = present[present >= count]
    if len(beyond):
        raise archive.error(
            f"{split}_masks",
            f"holds class {beyond[0]}, out of range: there are classes 0 to {count - 1}{_way_out(present)}",
        )


def _way_out(present: NDArray[np.integer]) -> str:
    return " (a mask of 0 and 255 is (masks > 0).astype('uint8'))" if present.max() == 255 else ""


def default_mask_names(count: int) -> tuple[str, ...]:
    """The names of `count` classes of masks, the background among them, where nobody gave any."""
    if count == 2:
        return BACKGROUND, "foreground"
    return (BACKGROUND, *(f"class {number}" for number in range(1, count)))
