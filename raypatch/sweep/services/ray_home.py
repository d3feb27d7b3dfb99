"""Where Ray may put its files: its sockets need a short path, its token a home that can be written to."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from raypatch.machine.environment import OWN_ENVIRONMENT, changed_environment, home, import_path, is_writable

LONGEST_BASE = 40
"""Bytes of a folder that leave room for Ray's sockets in it: a socket's path has 107 at most."""


def ray_base() -> Path | None:
    """A folder for Ray's files where its own choice will not do, else None; the caller removes it.

    Ray takes $RAY_TMPDIR, else $TMPDIR, else /tmp. Raises ValueError when there is no short and writable folder.
    """
    chosen = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")  # noqa: S108  as Ray does
    if _is_fit(chosen) and is_writable(chosen / "ray"):
        return None
    for folder in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):  # noqa: S108
        if _is_fit(folder):
            return Path(tempfile.mkdtemp(prefix="rp", dir=folder))
    raise ValueError(
        f"Ray needs a folder that can be written to and whose path has {LONGEST_BASE} bytes at most, for its sockets;"
        f" {chosen} is not, nor is /tmp. Set RAY_TMPDIR to one, or use --executor local"
    )


def _is_fit(folder: Path) -> bool:
    name = os.fsencode(folder.absolute() / "rp12345678")
    return folder.is_dir() and len(name) <= LONGEST_BASE and is_writable(folder)


@contextlib.contextmanager
def ray_place() -> Iterator[tuple[dict[str, str], Path]]:
    """Give the settings of ray.init that say where its files go, and an empty folder for its workers to start in.

    What was made is removed at the end.
    """
    base = ray_base()
    empty = Path(tempfile.mkdtemp(prefix="rp", dir=base))
    try:
        yield {} if base is None else {"_temp_dir": str(base)}, empty
    finally:
        shutil.rmtree(base or empty, ignore_errors=True)


@contextlib.contextmanager
def as_workers_need_it(empty: Path) -> Iterator[None]:
    """Let Ray start or connect such that its workers import what this process imports, and nothing else.

    Ray puts the working folder first on its workers' path, and a package that lies there would be trained with in place
    of the installed one: the folder `empty` stands in for it. What workers inherit besides is set for that time.
    """
    needed = OWN_ENVIRONMENT | {"PYTHONPATH": import_path()}
    ray_home = home() / ".ray"
    if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ and not is_writable(ray_home):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # for this process and its children alone
    with changed_environment(needed), contextlib.chdir(empty):
        yield
