"""Which file a cell of a table names."""

from collections.abc import Sequence
from pathlib import Path

from raypatch.data.inputs.scan import format_of, is_hidden
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.sources.listing import MASK_FOLDERS, without_suffix
from raypatch.words import first_of


class FilesBelow:
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
