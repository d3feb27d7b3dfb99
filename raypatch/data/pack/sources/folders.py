"""A folder with a sub-folder per class, perhaps below train, val and test, perhaps with masks beside."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from raypatch.data.catalog import Split
from raypatch.data.inputs.dicom import group_series, patient_of
from raypatch.data.inputs.scan import ImageFiles, format_of, is_hidden
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.sources.listing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    Item,
    Listing,
    image_files,
    pair_masks,
    split_of_word,
)
from raypatch.words import counted, first_of


def list_folders(source: Path, dimensions: int | None) -> Listing:
    """Return what a folder holds: its sub-folders are splits, classes, or `images` and `masks`.

    A class folder is read with all that lies below it. Images straight below `images` have no
    class; then there must be masks. dimensions: 2 takes each DICOM file as a picture, 3 each series
    as a volume, None decides by the series. Raises DataError for empty class folders and a single
    class.
    """
    listing = Listing(source, [])
    images, masks = _images_and_masks(source)
    splits = _split_folders(images)
    if splits:
        for split, folder in splits:
            inner_images, inner_masks = _images_and_masks(folder)
            listing.items += _list_classes(inner_images, source, split, dimensions, inner_masks)
    else:
        listing.items = _list_classes(images, source, None, dimensions, masks)
    _require_classes(source, listing)
    return listing


def images_of(files: Sequence[Path], root: Path, dimensions: int | None) -> list[ImageFiles]:
    """Return the images of some files: each its own, but DICOM files of one series are a volume.

    dimensions None: series are volumes if any has more than one file.
    """
    dicom = [file for file in files if format_of(file) == "dicom"]
    plain = [file for file in files if format_of(file) != "dicom"]
    images = [ImageFiles(file.relative_to(root).as_posix(), (file,)) for file in plain]
    if dicom and dimensions != 2:
        images += group_series(dicom, root)
    else:
        images += [ImageFiles(file.relative_to(root).as_posix(), (file,)) for file in dicom]
    return images


def add_dicom_patients(items: Sequence[Item]) -> list[Item]:
    """Return the items with the PatientID of their DICOM files where no patient is known."""
    known = []
    for item in items:
        patient = item.patient
        if patient is None and format_of(item.image.path) == "dicom":
            patient = patient_of(item.image.path) or None
        known.append(Item(item.image, item.label, patient, item.split, item.mask))
    return known


def _sub_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_hidden(path)]


def _images_and_masks(folder: Path) -> tuple[Path, Path | None]:
    """The folders `images` and `masks` of a folder, under any of their usual names; else the folder itself."""
    by_name = {path.name.lower(): path for path in _sub_folders(folder)}
    images = next((by_name[name] for name in IMAGE_FOLDERS if name in by_name), None)
    if images is None:
        return folder, None
    masks = next((by_name[name] for name in MASK_FOLDERS if name in by_name), None)
    return images, masks


def _split_folders(folder: Path) -> list[tuple[Split, Path]]:
    """Sub-folders that are named after splits, where all are."""
    named = [(split_of_word(path.name), path) for path in _sub_folders(folder)]
    found = [(split, path) for split, path in named if split is not None]
    return found if len(found) == len(named) else []


def _list_classes(
    folder: Path, root: Path, split: Split | None, dimensions: int | None, masks: Path | None
) -> list[Item]:
    classes = _sub_folders(folder)
    items: list[Item] = []
    empty = []
    for each in classes:
        found = images_of(image_files(each), root, dimensions)
        if not found:
            empty.append(each.name)
        items += [Item(image, each.name, None, split) for image in found]
    if empty:
        raise DataError(f"{folder} has class folders without images: {first_of(empty)}; fill or remove them")
    if not classes:
        items = [Item(image, None, None, split) for image in images_of(image_files(folder), root, dimensions)]
    return pair_masks(items, folder, masks) if masks is not None else items


def _require_classes(source: Path, listing: Listing) -> None:
    items = listing.items
    if not items:
        raise DataError(
            f"{source} holds no images: give a folder with a sub-folder per class, or train, val and test above them,"
            " a .csv file with images beside it, or PatchCamelyon's .h5 files"
        )
    classes = Counter(item.label for item in items)
    if None in classes and not items[0].mask:
        raise DataError(
            f"{source} holds {counted(len(items), 'image')} without classes: put those of each class into a folder of"
            " its own, or give a .csv file that names image and label"
        )
    if None not in classes and len(classes) == 1:
        raise DataError(
            f"{source} has one class only, {next(iter(classes))}; at least two are needed, a sub-folder each"
        )
