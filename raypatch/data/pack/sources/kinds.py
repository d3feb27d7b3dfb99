"""Which kind of source a path is, and what it holds."""

from pathlib import Path

from raypatch.data.inputs.scan import HDF5, is_hidden
from raypatch.data.layout.archive import DataError
from raypatch.data.own import TABLES
from raypatch.data.pack.options import PackOptions
from raypatch.data.pack.sources.folders import add_dicom_patients, list_folders
from raypatch.data.pack.sources.listing import Listing
from raypatch.data.pack.sources.patchcamelyon import list_patchcamelyon
from raypatch.data.pack.table import TableOptions, list_table
from raypatch.words import first_of


def list_source(source: Path, options: PackOptions) -> Listing:
    """Return the images of a source.

    A table (.csv) with files below its folder; PatchCamelyon's .h5 files; or a folder with a
    sub-folder per class, perhaps below train, val and test. A folder whose images lie in no class
    folders and that holds one table is that table. Raises DataError for anything else.
    """
    source = source.expanduser()
    if not source.exists():
        raise DataError(f"there is no {source}: give a folder, a .csv file or PatchCamelyon's .h5 files")
    listing = _list(source.resolve(), options)
    listing.items = add_dicom_patients(listing.items)
    if options.columns.get("patient") == "-":
        listing.items = [item.without_patient() for item in listing.items]
    return listing


def _list(source: Path, options: PackOptions) -> Listing:
    table = TableOptions(options.columns, options.uncertain, options.skip_broken, options.dimensions)
    if source.is_file():
        if source.name.lower().endswith(TABLES):
            return list_table(source, table)
        if source.name.lower().endswith(HDF5):
            return list_patchcamelyon(source.parent)
        kind = "unpack it first" if source.suffix in (".zip", ".gz", ".tar") else "it is none of these"
        raise DataError(f"{source}: a source is a folder, a .csv file or PatchCamelyon's .h5 files; {kind}")
    if any(source.glob("*_x.h5")):
        return list_patchcamelyon(source)
    tables = [path for path in sorted(source.iterdir()) if _is_table(path)]
    if options.columns and set(options.columns) != {"patient"} and not tables:
        raise DataError(f"--columns names columns of a table, and {source} holds no {', '.join(TABLES)} file")
    asked = bool(set(options.columns) - {"patient"})
    if tables and (asked or not _has_classes(source)):
        if len(tables) > 1:
            raise DataError(f"{source} holds {len(tables)} tables, {first_of(tables)}; give the one that is meant")
        return list_table(tables[0], table)
    return list_folders(source, options.dimensions)


def _is_table(path: Path) -> bool:
    is_text = path.name.lower().endswith(TABLES) and path.is_file() and not is_hidden(path)
    return is_text and not path.name.lower().startswith(("readme", "license", "licence", "requirements"))


def _has_classes(source: Path) -> bool:
    """Whether a folder's images lie in folders of their own, as those of classes do."""
    try:
        return bool(list_folders(source, None).items[0].label)
    except DataError:
        return False
