"""A table with a row per image: any delimiter, columns guessed or told, cells as text."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raypatch.data.inputs.scan import ImageFiles, format_of, is_hidden
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.sources.folders import images_of
from raypatch.data.pack.sources.listing import Item, Listing, split_of_word
from raypatch.data.pack.table.cells import is_gap, read_labels
from raypatch.data.pack.table.columns import choose_columns
from raypatch.data.pack.table.files import FilesBelow
from raypatch.words import agree, counted, first_of

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class TableOptions:
    """columns: by role the name of a column, of several labels joined by +, `-` for none.
    uncertain: what a label of -1 means. skip_missing: leave out rows whose file is not there.
    """

    columns: Mapping[str, str]
    uncertain: str | None = None
    skip_missing: bool = False
    dimensions: int | None = None


def list_table(path: Path, options: TableOptions) -> Listing:
    """Return the images that a table names, with what it says of each.

    Files lie anywhere below the table's folder; a cell is a path, the end of one, or a file's name
    with or without its suffix; or a folder of DICOM files. Raises DataError for files that are
    missing, rows of one file with different labels, and splits of unknown names.
    """
    rows, notes = _read_rows(path)
    listing = Listing(path.parent, [], notes=notes)
    files = FilesBelow(path.parent)
    columns = choose_columns(path, rows, files, options.columns)
    listing.notes.append("columns: " + ", ".join(f"{role}={name}" for role, name in columns.items()))
    rows = _with_images(path, rows, columns["image"], files, options, listing)
    labels, listing.columns = read_labels(rows, columns.get("label"), options.uncertain, listing.notes)
    for row, label in zip(rows, labels, strict=True):
        if label is None and "label" in columns:
            continue
        listing.items += _items_of(path, row, columns, files, label, options.dimensions)
    _check_splits(path, rows, columns.get("split"))
    listing.items = _without_repeated(path, listing)
    return listing


def _items_of(
    path: Path,
    row: Mapping[str, str],
    columns: Mapping[str, str],
    files: FilesBelow,
    label: str | tuple[int, ...] | None,
    dimensions: int | None,
) -> list[Item]:
    patient = row.get(columns.get("patient", ""), "").strip() or None
    split = split_of_word(row.get(columns.get("split", ""), ""))
    found = files.find(row[columns["image"]])
    assert found is not None
    if found.is_dir():
        members = [file for file in sorted(found.rglob("*")) if file.is_file() and not is_hidden(file)]
        members = [file for file in members if format_of(file) == "dicom"]
        if not members:
            raise DataError(f"{path} names the folder {found}, which holds no DICOM files")
        images = images_of(members, path.parent, dimensions)
    else:
        # A series is named by its folder: one DICOM file is an image by itself.
        images = [ImageFiles(found.relative_to(path.parent).as_posix(), (found,))]
    mask = None
    if "mask" in columns and not is_gap(row[columns["mask"]]):
        mask_file = files.find(row[columns["mask"]], among_masks=True)
        if mask_file is None:
            raise DataError(f"{path} names the mask {row[columns['mask']]}, which is not below {path.parent}")
        mask = ImageFiles(mask_file.name, (mask_file,))
    elif "mask" not in columns:
        twin = files.mask_of(found)
        mask = ImageFiles(twin.name, (twin,)) if twin else None
    return [Item(image, label, patient, split, mask) for image in images]


def _read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows by column, as text: ids keep their zeros, and gaps turn nothing to floats."""
    notes = []
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        notes.append(f"{path.name} is not UTF-8: read as Windows-1252")
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    if not rows:
        raise DataError(
            f"{path} holds no rows: a table has its columns' names in the first line, a row per image below"
        )
    return rows, notes


def _with_images(
    path: Path,
    rows: Sequence[dict[str, str]],
    column: str,
    files: FilesBelow,
    options: TableOptions,
    listing: Listing,
) -> list[dict[str, str]]:
    """The rows whose file is there."""
    there, missing = [], []
    for row in rows:
        if files.find(row[column]) is None:
            missing.append(row[column] or "(empty)")
        else:
            there.append(row)
    are = agree(len(missing), "is", "are")
    if missing and not (options.skip_missing and there):
        raise DataError(
            f"{len(missing)} of {len(rows)} files that {path} names in {column} {are} not below {path.parent}:"
            f" {first_of(missing)}. Bring them there, or leave their rows out with --skip-broken"
        )
    if missing:
        listing.notes.append(f"{counted(len(missing), 'row')} without their file {are} left out: {first_of(missing)}")
    return there


def _check_splits(path: Path, rows: Sequence[Mapping[str, str]], column: str | None) -> None:
    if column is None:
        return
    unknown = sorted({row[column] for row in rows if split_of_word(row[column]) is None})
    if unknown:
        raise DataError(
            f"{path}: the split column {column} holds {first_of(map(repr, unknown))};"
            " train, val (valid, validation) and test are known. Rename them, or make a new split:"
            " --columns split=-"
        )


def _without_repeated(path: Path, listing: Listing) -> list[Item]:
    """The items, each image once. Raises DataError for one with two labels."""
    by_name: dict[str, Item] = {}
    torn: list[str] = []
    repeated = 0
    for item in listing.items:
        first = by_name.setdefault(item.image.name, item)
        if first is item:
            continue
        repeated += 1
        if first.label != item.label:
            torn.append(f"{item.image.name} ({first.label} and {item.label})")
        elif (first.patient, first.split) != (item.patient, item.split):
            torn.append(f"{item.image.name} (patients or splits that differ)")
    if torn:
        raise DataError(
            f"{path} has {counted(len(torn), 'file')} in rows that contradict each other: {first_of(torn)};"
            " keep one row of each"
        )
    if repeated:
        repeat = agree(repeated, "repeats", "repeat")
        listing.notes.append(f"{counted(repeated, 'row')} {repeat} another row of the same file and label: left out")
    return [replace(item) for item in by_name.values()]
