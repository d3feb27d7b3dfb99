"""Which column of a table is the image, the label, the patient, the split, the mask: told, or guessed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from raypatch.data.layout.archive import DataError
from raypatch.data.pack.table.cells import is_gap
from raypatch.data.pack.table.files import FilesBelow
from raypatch.words import first_of

ROLES = ("image", "label", "patient", "split", "mask")
_LOOKED_AT = 5000
"""How many rows are enough to see which column names files."""

_NAMES = {
    "label": "label labels class diagnosis diagnostic dx target finding finding_labels category disease grade y",
    "patient": "patient_id patient patientid subject_id subject participant_id participant pid case_id case mrn",
    "split": "split set subset partition",
    "mask": "mask mask_path mask_file segmentation seg segmentation_path",
}


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


def choose_columns(
    path: Path, rows: Sequence[Mapping[str, str]], files: FilesBelow, told: Mapping[str, str]
) -> dict[str, str]:
    """Return the column of each role: as told, else guessed by its name, of the image by the files that its cells name.

    Raises DataError for a column that is not there, and where nothing tells the label.
    """
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


def _has_masks(rows: Sequence[Mapping[str, str]], image: str, files: FilesBelow) -> bool:
    for row in rows[:_LOOKED_AT]:
        found = files.find(row[image])
        if found is not None and files.mask_of(found) is not None:
            return True
    return False


def _guess_image(path: Path, rows: Sequence[Mapping[str, str]], files: FilesBelow, names: Sequence[str]) -> str:
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
