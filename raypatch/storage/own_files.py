"""A user's own file named by its content, so that moving it changes no trial."""

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

OWN_FILE = re.compile(r"file:(?P<stem>[A-Za-z0-9_.-]{1,64})@(?P<digest>[0-9a-f]{12})")
"""How an own dataset or weights stand in a config."""


def own_file_id(path: Path) -> str:
    """Return file:STEM@DIGEST of an own file, its digest the first 12
    hex digits of SHA-256 over the content.

    Raises ValueError when the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64] or "file"
    return f"file:{stem}@{digest}"


def own_file_stem(identity: str) -> str | None:
    """Return the stem of file:STEM@DIGEST, None for anything else."""
    own = OWN_FILE.fullmatch(identity)
    return own["stem"] if own else None


def locate_own_file(identity: str, files: Mapping[str, Path], *, option: str) -> Path:
    """Return where the own file named file:STEM@DIGEST lies by `files`;
    its content is read once per process and state.

    option: what the user gives it by, for the messages, such as `--weights`. Raises ValueError when
    it is not in `files`, absent or changed.
    """
    path = files.get(identity)
    if path is None:
        raise ValueError(
            f"it is not known where {identity} lies; give the file's path: {option} FILE",
        )
    try:
        state = path.stat()
    except OSError as error:
        raise ValueError(
            f"cannot read {path}, which was {identity}: {error.strerror};"
            f" bring it back or give its new path: {option} FILE"
        ) from error
    # Size and time tell a file that has changed, without reading gigabytes for every trial.
    found = _id_of_state(path, state.st_size, state.st_mtime_ns)
    if found.rpartition("@")[2] != identity.rpartition("@")[2]:
        raise ValueError(
            f"{path} has changed since it was named {identity}: it is now {found}."
            " Bring the old file back, or start a new run with the changed one"
        )
    return path


@functools.cache
def _id_of_state(path: Path, _size: int, _mtime_ns: int) -> str:
    """The file's id, read once as long as its size and time of change stay."""
    return own_file_id(path)
