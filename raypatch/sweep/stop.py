"""Asking a running sweep to stop: by signal, by time limit, or because it cannot go on."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from raypatch.machine.runtime import in_notebook

POLL_SECONDS = 0.25


class StopRequest:
    """A request that the driver sets and every worker sees, through a file beside the trials.

    reason: for people; the first one stays. halted: whether no trial can go on until the user acts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reason: str | None = None
        self.halted = False
        self._event = threading.Event()

    def set(self, reason: str) -> None:
        """Ask to stop. Safe in a signal handler, and when the disk is full."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()
            # Without room for the file only this process sees the request.
            with contextlib.suppress(OSError):
                self.path.touch()

    def halt(self, reason: str) -> None:
        """Stop because no trial can go on, such as on a full disk. reason: what the user can do."""
        if not self.is_set():
            self.halted = True
            self.set(reason)

    def is_set(self) -> bool:
        """Whether this process was asked to stop."""
        return self._event.is_set()

    @contextlib.contextmanager
    def listening(self, time_limit: float | None = None) -> Iterator[None]:
        """Take SIGINT, SIGTERM and the time limit (seconds) as requests to stop.

        A second signal ends the process at once, in a notebook the call alone.
        """

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.is_set():
                if in_notebook():
                    # The kernel holds the user's other work.
                    raise KeyboardInterrupt
                # By the system's own handler, so that the parent sees which signal it was.
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.set(signal.Signals(number).name)

        # A killed session leaves its stop file, which would stop this one.
        self.path.unlink(missing_ok=True)
        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, on_signal)
        timer = threading.Timer(time_limit, self.set, ["time limit"]) if time_limit else None
        if timer:
            # A timer that is no daemon keeps the process alive until it is due.
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer:
                timer.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def shielding_children() -> Iterator[None]:
    """Keep SIGTERM from the processes that start inside, and from those that they start.

    `timeout`, systemd and Slurm signal all processes of a command at once. Ray's own must stay until the driver has
    stopped the trials; Ray shields them from SIGINT by itself. A blocked signal stays blocked across fork and exec.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_file_watcher(path: Path) -> Callable[[], bool]:
    """Return a cheap question for a worker's every step: does the stop file exist?

    It looks every POLL_SECONDS at most, since the file may lie on a network file system.
    """
    state = {"next": 0.0, "stop": False}

    def should_stop() -> bool:
        now = time.monotonic()
        if now >= state["next"]:
            state["next"] = now + POLL_SECONDS
            state["stop"] = path.exists()
        return bool(state["stop"])

    return should_stop
