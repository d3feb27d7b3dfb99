"""A lock for file systems without flock: a file that only its holder could make,
and keeps young while it lives.
"""

import contextlib
import functools
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

BEAT_SECONDS = 20.0
"""How often a holder says that it lives, by the time of its file."""

STALE_SECONDS = 180.0
"""Older than this, the file's holder on another machine counts as dead."""

POLL_SECONDS = 0.5


@contextlib.contextmanager
def hold_owner_file(path: Path, *, wait: bool) -> Iterator[str | None]:
    """Hold the lock that the file at `path` stands for;
    gives None, or who holds it when `wait` is False.

    A holder of this machine is alive while its process is; one elsewhere while its file stays
    young, by the file system's own clock.
    """
    _tell_once()
    claim = "\n".join([_describe_process(os.getpid()), secrets.token_hex(8)])
    while (owner := _try_to_claim(path, claim)) is not None:
        if not wait:
            yield owner
            return
        time.sleep(POLL_SECONDS)
    ended = threading.Event()
    heart = threading.Thread(target=_keep_young, args=(path, ended), daemon=True)
    heart.start()
    try:
        yield None
    finally:
        ended.set()
        heart.join()
        with contextlib.suppress(OSError):
            if path.read_text("utf-8") == claim:
                path.unlink()


@functools.cache
def _tell_once() -> None:
    logging.getLogger("raypatch").warning(
        "raypatch: this file system has no locks (flock); files stand in for them, and after a crash on another"
        " machine the next start waits for up to %d minutes",
        STALE_SECONDS // 60,
    )


def _try_to_claim(path: Path, claim: str) -> str | None:
    """Make the file; return None when it is ours, else who has it.

    A dead holder's file is moved out of the way.
    """
    for _ in range(3):
        try:
            # O_EXCL: of several that try at once only one makes the file, over a network too.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            owner = _living_owner(path)
            if owner is not None:
                return owner
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(claim)
        return None
    return "another process"


def _living_owner(path: Path) -> str | None:
    """Who holds the file; None when it is gone, or was a dead holder's and is gone now."""
    try:
        found = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    if _is_alive(path, found):
        return found.partition(" started ")[0] or "another process"
    # Moved before it is removed: a name of our own, so that no other claim can be hit.
    grave = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(OSError):
        path.rename(grave)
        # Somebody was faster and had claimed it anew: give it back.
        if grave.read_text("utf-8") != found:
            os.link(grave, path)
        grave.unlink()
    return None


def _is_alive(path: Path, claim: str) -> bool:
    lines = claim.splitlines()
    described = lines[0] if lines else ""
    host, namespace = os.uname().nodename, _pid_namespace()
    if namespace and f" on {host} " in described and described.endswith(namespace):
        process = described.split()[1]
        return process.isdecimal() and described == _describe_process(int(process))
    return _age(path) < STALE_SECONDS


def _age(path: Path) -> float:
    """Seconds since the file was last touched, by the clock of its file system:
    machines' clocks differ.
    """
    probe = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _describe_process(process: int) -> str:
    """`process N on HOST started T in NAMESPACE`:
    no other process is described by it, not even by a reused number.
    """
    try:
        # The name of the program comes in parentheses and may hold spaces; field 22 is the start.
        stat = Path("/proc", str(process), "stat").read_text("utf-8")
        started = stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "unknown"
    return f"process {process} on {os.uname().nodename} started {started} in {_pid_namespace()}"


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _keep_young(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
