"""Files that survive a kill: replaced in one step, and locks that a dead holder cannot keep."""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from raypatch.storage.owner_lock import hold_owner_file

NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems without flock answer: Lustre without -o flock,
NFS without its lock service, some of FUSE.
"""


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write `content` aside, sync it and put it in place of `path` in one step.

    A reader sees the old file or the new one; on any error the old
    one stays and nothing is left behind.
    """
    # In the same folder: only within a file system is replacing one step.
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            # Or a power cut could leave the new name with no content.
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the aside files that a killed writer left in `folder`;
    call it only while holding the folder's lock.
    """
    for aside in folder.glob(".*.tmp"):
        aside.unlink(missing_ok=True)


class LockedError(RuntimeError):
    """Somebody else holds the lock; the message says who."""


@contextlib.contextmanager
def hold_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file at `path`; it says who holds it and is removed at the end.

    The kernel frees it on any death.

    Where the file system has no such locks, a file made by its holder alone stands in (see
    owner_lock). Raises LockedError when another process holds it and `wait` is False.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = _lock_by_kernel(path, wait=wait)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            stack.enter_context(_hold_without_flock(path, wait=wait))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
            yield
        finally:
            # While the lock is still held, so that nobody else's file is removed.
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _lock_by_kernel(path: Path, *, wait: bool) -> int:
    """Open the file at `path` under the kernel's lock and return its descriptor.

    Raises LockedError and OSError.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            content = os.pread(descriptor, 200, 0).decode(errors="replace")
            holder = content.strip() or "another process"
            os.close(descriptor)
            raise LockedError(f"{path.parent} is in use by {holder}") from error
        except BaseException:
            os.close(descriptor)
            raise
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        # The last holder removed the file between our open and our lock: try again.
        os.close(descriptor)


@contextlib.contextmanager
def _hold_without_flock(path: Path, *, wait: bool) -> Iterator[None]:
    owner_file = path.with_name(f"{path.name}.owner")
    with hold_owner_file(owner_file, wait=wait) as owner:
        if owner is not None:
            raise LockedError(f"{path.parent} is in use by {owner}")
        yield


def lock_holder(path: Path) -> str | None:
    """Who holds the lock at `path`, without touching it;
    None when nobody does or the holder on this machine died.
    """
    try:
        holder = path.read_text("utf-8")
    except OSError:
        return None
    match = re.fullmatch(r"process (\d+) on (.+)", holder)
    if match and match[2] == os.uname().nodename and _has_died(match[1]):
        return None
    return holder or None


def _has_died(process: str) -> bool:
    """Whether a process of this machine has ended; False without /proc, where none can be seen."""
    return Path("/proc").exists() and not Path("/proc", process).exists()
