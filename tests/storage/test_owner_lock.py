"""Locks where the file system has none: a file that its holder alone could make."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raypatch.storage import owner_lock
from raypatch.storage.files import NO_FLOCK, LockedError, hold_lock


@pytest.fixture(autouse=True, params=sorted(NO_FLOCK))
def no_flock(request, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(owner_lock, "POLL_SECONDS", 0.01)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_holds_it_and_leaves_nothing(tmp_path):
    lock = tmp_path / ".lock"
    with hold_lock(lock):
        assert lock.read_text() == f"process {os.getpid()} on {os.uname().nodename}"
        with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on "), hold_lock(lock):
            pass
    assert names(tmp_path) == []


def test_who_waits_gets_it_in_the_end(tmp_path):
    order = []

    def second() -> None:
        with hold_lock(tmp_path / ".lock", wait=True):
            order.append("second")

    with hold_lock(tmp_path / ".lock"):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.1)
        order.append("first")
    waiting.join(timeout=10)
    assert order == ["first", "second"]


HOLD_AND_DIE = """
import os, sys
from pathlib import Path
from raypatch.storage.owner_lock import hold_owner_file
with hold_owner_file(Path(sys.argv[1]), wait=False):
    os._exit(9)
"""


def test_a_dead_holder_of_this_machine_keeps_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path / ".lock.owner")], check=False)
    assert names(tmp_path) == [".lock.owner"]
    with hold_lock(tmp_path / ".lock"):
        pass
    assert names(tmp_path) == []


def test_a_holder_elsewhere_counts_as_dead_once_its_file_is_old(tmp_path):
    owner = tmp_path / ".lock.owner"
    owner.write_text("process 7 on elsewhere started 1 in pid:[1]\nabc")
    with pytest.raises(LockedError, match="in use by process 7 on elsewhere"), hold_lock(tmp_path / ".lock"):
        pass
    old = time.time() - owner_lock.STALE_SECONDS - 10
    os.utime(owner, (old, old))
    with hold_lock(tmp_path / ".lock"):
        pass
    assert names(tmp_path) == []


def test_a_reused_process_number_is_another_process(tmp_path):
    mine = owner_lock._describe_process(os.getpid())
    started = mine.split()[5]
    (tmp_path / ".lock.owner").write_text(mine.replace(f"started {started}", "started 1") + "\nabc")
    with hold_lock(tmp_path / ".lock"):
        pass


def test_other_errors_stay_errors(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken disk"), hold_lock(tmp_path / ".lock"):
        pass
