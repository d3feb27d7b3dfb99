"""A table with a row per image: any delimiter, columns guessed or told, cells as text."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raypatch.data.archive import DataError
from raypatch.data.inputs.scan import ImageFiles, format_of, is_hidden
from raypatch.data.pack.cells import is_gap, read_labels
from raypatch.data.pack.folders import images_of
from raypatch.data.pack.listing import MASK_FOLDERS, Item, Listing, first_of, split_of_word, without_suffix

ROLES = ("image", "label", "patient", "split", "mask")
_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 5000
"""How many rows are enough to see which column names files."""

_NAMES = {
    "label": "label labels class diagnosis diagnostic dx target finding finding_labels category disease grade y",
    "patient": "patient_id patient patientid subject_id subject participant_id participant pid case_id case mrn",
    "split": "split set subset partition",
    "mask": "mask mask_path mask_file segmentation seg segmentation_path",
}


@dataclass(frozen=True)
class TableOptions:
    """columns: by role the name of a column, of several labels joined by +, `-` for none.
    uncertain: what a label of -1 means. skip_missing: leave out rows whose file is not there.
    """

    columns: Mapping[str, str]
    uncertain: str | None = None
    skip_missing: bool = False
    dimensions: int | None = None


def parse_columns(text: str | None) -> dict[str, str]:
    """Read --columns image=img_id,label=diagnostic. Raises ValueError for another form or role."""
    columns = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        role, separator, name = (word.strip() for word in part.partition("="))
        if not separator or not name or role not in ROLES:
            raise ValueError(f"--columns {part!r} must be ROLE=COLUMN, with a role of {', '.join(ROLES)}")
        columns[role] = name
    return columns


def list_table(path: Path, options: TableOptions) -> Listing:
    """Return the images that a table names, with what it says of each.

    Files lie anywhere below the table's folder; a cell is a path, the end of one, or a file's name
    with or without its suffix; or a folder of DICOM files. Raises DataError for files that are
    missing, rows of one file with different labels, and splits of unknown names.
    """
    rows, notes = _read_rows(path)
    listing = Listing(path.parent, [], notes=notes)
    files = _Files(path.parent)
    columns = _choose_columns(path, rows, files, options.columns)
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
    files: "_Files",
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


class _Files:
    """The files below a folder, found by path, by the end of one, or by name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_name: dict[str, list[Path]] = {}
        for file in sorted(root.rglob("*")):
            if is_hidden(file) or not (file.is_dir() or format_of(file)):
                continue
            for name in {file.name, without_suffix(file) if file.is_file() else file.name}:
                self._by_name.setdefault(name.lower(), []).append(file)

    def find(self, cell: str, *, among_masks: bool = False) -> Path | None:
        """Return the file that a cell names; None where there is none."""
        parts = [part for part in cell.strip().replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            return None
        # The longest end of the path that is there: tables keep the folders of where they were made.
        candidates = self._by_name.get(parts[-1].lower(), [])
        wanted = [file for file in candidates if self._in_masks(file) == among_masks] or candidates
        best = max(wanted, key=lambda file: _common_end(file.parts, parts), default=None)
        if best is None:
            return None
        alike = [file for file in wanted if _common_end(file.parts, parts) == _common_end(best.parts, parts)]
        if len(alike) > 1:
            raise DataError(f"{cell!r} names {len(alike)} files: {first_of(alike)}; give more of the path in the table")
        return best

    def mask_of(self, image: Path) -> Path | None:
        """Return the file of the same name in a folder of masks, if there is one."""
        name = without_suffix(image).lower()
        for key in (name, f"{name}_mask", f"{name}_seg", f"{name}_segmentation"):
            for file in self._by_name.get(key, []):
                if file.is_file() and self._in_masks(file) and not self._in_masks(image):
                    return file
        return None

    def _in_masks(self, file: Path) -> bool:
        folders = file.relative_to(self._root).parts[:-1]
        return any(folder.lower() in MASK_FOLDERS for folder in folders)


def _common_end(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts two paths have in common, from their ends, the name's suffix aside."""
    common = 1  # the name, by which they were found
    for ours, theirs in zip(reversed(first[:-1]), reversed(second[:-1]), strict=False):
        if ours.lower() != theirs.lower():
            break
        common += 1
    return common


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


def _choose_columns(
    path: Path, rows: Sequence[Mapping[str, str]], files: _Files, told: Mapping[str, str]
) -> dict[str, str]:
    names = list(rows[0])
    chosen = {}
    for role, name in told.items():
        several = re.split(r"[+/]", name) if role == "label" and name not in names else [name]
        unknown = [each for each in several if each not in names and name != "-"]
        if unknown:
            raise DataError(f"{path} has no column {first_of(unknown)} (--columns); it has {', '.join(names)}")
        chosen[role] = name
    if "image" not in chosen:
        chosen["image"] = _guess_image(path, rows, files, names)
    for role, words in _NAMES.items():
        # In the order of the words: `label` is a likelier label than `grade`.
        known = {name.strip().lower().replace(" ", "_"): name for name in reversed(names)}
        guess = next((known[word] for word in words.split() if word in known), None)
        if role not in chosen and guess is not None and guess != chosen["image"]:
            chosen[role] = guess
    chosen = {role: chosen[role] for role in ROLES if chosen.get(role, "-") != "-"}
    if "label" not in chosen and "mask" not in chosen and not _has_masks(rows, chosen["image"], files):
        raise DataError(f"{path}: which column is the label? Name it: --columns label=COLUMN, of {', '.join(names)}")
    return chosen


def _has_masks(rows: Sequence[Mapping[str, str]], image: str, files: _Files) -> bool:
    for row in rows[:_LOOKED_AT]:
        found = files.find(row[image])
        if found is not None and files.mask_of(found) is not None:
            return True
    return False


def _guess_image(path: Path, rows: Sequence[Mapping[str, str]], files: _Files, names: Sequence[str]) -> str:
    """The column whose cells name most files, each one of its own."""
    best, most = None, 0
    for name in names:
        found = {files.find(row[name]) for row in rows[:_LOOKED_AT] if not is_gap(row[name])}
        count = len(found - {None})
        if count > most:
            best, most = name, count
    if best is None:
        raise DataError(
            f"{path}: no column names files below {path.parent}. Put the images there, or name the column:"
            f" --columns image=COLUMN, of {', '.join(names)}"
        )
    return best


def _with_images(
    path: Path,
    rows: Sequence[dict[str, str]],
    column: str,
    files: _Files,
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
    if missing and not (options.skip_missing and there):
        raise DataError(
            f"{len(missing)} of {len(rows)} files that {path} names in {column} are not below {path.parent}:"
            f" {first_of(missing)}. Bring them there, or leave their rows out with --skip-broken"
        )
    if missing:
        listing.notes.append(f"{len(missing)} rows without their file are left out: {first_of(missing)}")
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
            f"{path} has {len(torn)} files in rows that contradict each other: {first_of(torn)}; keep one row of each"
        )
    if repeated:
        listing.notes.append(f"{repeated} rows repeat another row of the same file and label: left out")
    return [replace(item) for item in by_name.values()]
