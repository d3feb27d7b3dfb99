"""What notebooks, jobs and homes leave in the environment,
kept from breaking a command and its processes.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from raypatch.machine.cores import available_cores

OWN_ENVIRONMENT = {
    # A notebook names a backend that only its own environment has; nothing is ever shown on a screen here.
    "MPLBACKEND": "agg",
    # A user's matplotlibrc is for the user's plots; an empty one stands for matplotlib's defaults.
    "MATPLOTLIBRC": os.devnull,
    # Processes started with -m would look for modules in the working folder first, where a random.py may lie.
    "PYTHONSAFEPATH": "1",
}


def prepare_environment() -> None:
    """Set the environment of a command of its own process, before anything heavy is imported."""
    os.environ.update(OWN_ENVIRONMENT)
    cores = available_cores()
    if cores < (os.cpu_count() or 1):
        # torch counts the machine's cores, whatever the quota.
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    # Where it keeps its fonts is no news.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


@contextlib.contextmanager
def changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the time of starting processes, which keep them;
    afterwards all is as before.
    """
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def import_path() -> str:
    """Where this process imports from, as a PYTHONPATH that lets another one import the same."""
    folders = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100  an empty entry is the working folder
    # A folder whose name holds the separator cannot be named in PYTHONPATH.
    nameable = dict.fromkeys(folder for folder in folders if os.pathsep not in folder)
    return os.pathsep.join(nameable)


def cache_folder() -> Path:
    """Where what was measured on this machine is kept; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "raypatch"


def home() -> Path:
    """The user's home, or a path that cannot be written to where there is none,
    as in some containers.
    """
    return Path(os.path.expanduser("~"))  # noqa: PTH111  Path.home() raises RuntimeError there


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or in the nearest folder above that exists:
    tried, not guessed.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    probe = existing / f".raypatch.{os.getpid()}.tmp"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
