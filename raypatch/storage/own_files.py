"""A user's own file named by its content, so that moving it changes no trial."""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from raypatch.storage.reading import file_digest

OWN_FILE = re.compile(r"file:(?P<stem>[A-Za-z0-9_.-]{1,64})@(?P<digest>[0-9a-f]{12})")
"""How an own dataset or weights stand in a config."""

OWN_SET = re.compile(r"file:(?P<stem>[A-Za-z0-9_.-]{1,64})@(?P<members>\d+=[0-9a-f]{12}(\+\d+=[0-9a-f]{12})*)")
"""How an own dataset stands in a config that comes as several files, one for each size of its images."""

OWN_SUFFIXES = {"dataset": (".npz",), "weights": (".safetensors", ".pth", ".pt", ".bin", ".ckpt")}
"""Fields that may name an own file, and how such a file's name ends."""

MOST_FILES = 200
"""How many files of a folder are read in search of one that was moved."""


def own_file_id(path: Path) -> str:
    """Return file:STEM@DIGEST of an own file, its digest the first 12
    hex digits of SHA-256 over the content.

    Raises ValueError when the file cannot be read.
    """
    try:
        digest = file_digest(path, hashlib.sha256())[:12]
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    return f"file:{plain_stem(path.stem)}@{digest}"


def plain_stem(name: str) -> str:
    """Return a name as it may stand in an identity."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64] or "file"


def own_file_stem(identity: str) -> str | None:
    """Return the stem of file:STEM@DIGEST, or of a set of files; None for anything else."""
    own = OWN_FILE.fullmatch(identity) or OWN_SET.fullmatch(identity)
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
        found = _id_of(path)
    except OSError as error:
        moved = _find_content(identity, _readable_files(path.parent, path.suffix))
        way_out = f"give {option} FILE"
        if moved is not None:
            way_out = f"its content now lies in {moved}: give {option} {moved}"
        raise ValueError(
            f"cannot read {path}, which was {identity}: {error.strerror}; bring it back, or {way_out}"
        ) from error
    if _digest(found) != _digest(identity):
        raise ValueError(
            f"{path} has changed since it was named {identity}: it is now {found}."
            " Bring the old file back, or start a new run with the changed one"
        )
    return path


def move_own_files(
    files: Mapping[str, Path], given: Iterable[Path], folders: Sequence[Path], beside: Sequence[Path] = ()
) -> dict[str, Path]:
    """Return where own files lie now: `files` with what was given, or found by its content,
    in place of what was.

    given: new paths, each of one of the files. folders: where those that are missing are looked
    for, whatever their name is now; beside: where under their old name, alone or in the folders that
    it was in, as when data and runs were moved together. Raises ValueError for a given file that is none of them.
    """
    moved = dict(files)
    for path in given:
        digest = _digest(own_file_id(path))
        identities = [identity for identity in files if _digest(identity) == digest]
        if not identities:
            known = ", ".join(files) or "it has none"
            raise ValueError(
                f"{path} is {own_file_id(path)}, none of the files of this run: {known}."
                " Give the same content, or start a new run with the other file"
            )
        # One content may have several names, where copies of a file were given.
        moved |= dict.fromkeys(identities, path.absolute())
    for identity, path in moved.items():
        if path.exists():
            continue
        same_name = [folder / tail for folder in beside for tail in _tails(path)]
        for candidates in (same_name, *(_readable_files(folder, path.suffix) for folder in folders)):
            found = _find_content(identity, candidates)
            if found is not None:
                moved[identity] = found.absolute()
    return moved


def _tails(path: Path) -> list[Path]:
    """The ends of an absolute path, from the file's name alone: c.npz, b/c.npz, a/b/c.npz."""
    parts = path.parts[1:]
    return [Path(*parts[-length:]) for length in range(1, len(parts) + 1)]


def _digest(identity: str) -> str:
    return identity.rpartition("@")[2]


def _readable_files(folder: Path, suffix: str) -> Iterator[Path]:
    try:
        candidates = sorted(folder.glob(f"*{suffix}"))
    except OSError:
        return
    for path in candidates[:MOST_FILES]:
        if path.is_file() and not path.name.startswith("."):
            yield path


def _find_content(identity: str, candidates: Iterable[Path]) -> Path | None:
    """The candidate with the content that `identity` names."""
    for path in candidates:
        try:
            if _digest(_id_of(path)) == _digest(identity):
                return path
        # A file that is another's, or was removed while this one looked.
        except (OSError, ValueError):
            continue
    return None


def _id_of(path: Path) -> str:
    """The file's id; the file is read once as long as its size and time of change stay.

    Raises OSError.
    """
    state = path.stat()
    return _id_of_state(path, state.st_size, state.st_mtime_ns)


@functools.cache
def _id_of_state(path: Path, _size: int, _mtime_ns: int) -> str:
    return own_file_id(path)
