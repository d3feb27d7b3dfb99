"""What is named where a dataset is wanted: own images that are to be packed first, or not."""

from pathlib import Path

from raypatch.data.catalog import canonical_name

TABLES = (".csv", ".tsv", ".txt")


def is_source(text: str) -> bool:
    """Whether a text that should name a dataset is the path of one to be packed: a folder or a table."""
    # A name of the catalog means the official set, whatever folder is called so.
    if "/" not in text and _is_known(text):
        return False
    path = Path(text).expanduser()
    if path.is_dir():
        # A folder of .npz files is a dataset at several sizes, packed already.
        return next(path.glob("*.npz"), None) is None
    return path.name.lower().endswith(TABLES) and path.is_file()


def _is_known(name: str) -> bool:
    try:
        canonical_name(name)
    except ValueError:
        return False
    return True
