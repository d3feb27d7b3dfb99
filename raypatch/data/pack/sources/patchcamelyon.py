"""PatchCamelyon's form: x and y of each split in .h5 files of their own, perhaps with a table of slides."""

import csv
from pathlib import Path

from raypatch.data.catalog import Split
from raypatch.data.inputs.hdf5 import open_array
from raypatch.data.inputs.scan import ImageFiles
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.sources.listing import Item, Listing, split_of_word


def list_patchcamelyon(folder: Path) -> Listing:
    """Return the images of *_x.h5, their labels in *_y.h5, their slides in *_meta.csv (column `wsi`).

    The split is the word of the name that says one: camelyonpatch_level_2_split_valid_x.h5. Raises
    DataError for a file that says none, and for labels that do not fit.
    """
    listing = Listing(folder, [])
    for images in sorted(folder.glob("*_x.h5")):
        split = _split_of(images)
        labels = images.with_name(images.name.removesuffix("_x.h5") + "_y.h5")
        if not labels.exists():
            raise DataError(f"{images} has no {labels.name} beside it, which holds its labels")
        values = open_array(labels)[:].reshape(-1)
        count = open_array(images).shape[0]
        if len(values) != count:
            raise DataError(f"{labels} holds {len(values)} labels for the {count} images of {images.name}")
        slides = _read_slides(images, count)
        for row in range(count):
            image = ImageFiles(f"{split}/{row}", (images,), row)
            listing.items.append(Item(image, str(int(values[row])), slides[row] if slides else None, split))
    return listing


def _split_of(path: Path) -> Split:
    for word in path.stem.split("_"):
        split = split_of_word(word)
        if split is not None:
            return split
    raise DataError(f"{path}: its name says no split; name it such as ..._train_x.h5")


def _read_slides(images: Path, count: int) -> list[str] | None:
    """Whose slide each patch is of; None where no table says it."""
    table = images.with_name(images.name.removesuffix("_x.h5") + "_meta.csv")
    if not table.exists():
        return None
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if len(rows) != count or (rows and "wsi" not in rows[0]):
        raise DataError(
            f"{table} has {len(rows)} rows, with the columns {', '.join(rows[0])}; {count} with wsi are needed"
        )
    return [row["wsi"] for row in rows]
