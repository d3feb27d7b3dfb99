"""Asking a running sweep to stop: by signal, by time limit, or because it cannot go on (a full disk)."""

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

    reason: for people; the first one stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reason: str | None = None
        self._event = threading.Event()

    def set(self, reason: str) -> None:
        """Ask to stop. Safe in a signal handler, and when the disk is full: then only this process sees it."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()
            with contextlib.suppress(OSError):
                self.path.touch()

    def is_set(self) -> bool:
        """Whether this process was asked to stop."""
        return self._event.is_set()

    @contextlib.contextmanager
    def listening(self, time_limit: float | None = None) -> Iterator[None]:
        """Take SIGINT, SIGTERM and the time limit (seconds) as requests; a second signal ends the process at once.

        In a notebook it ends the call alone, because the kernel holds the user's other work.
        """

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.is_set():
                if in_notebook():
                    raise KeyboardInterrupt
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.set(signal.Signals(number).name)

        self.path.unlink(missing_ok=True)
        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        timer = threading.Timer(time_limit, self.set, ["time limit"]) if time_limit else None
        if timer:
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


def stop_file_watcher(path: Path) -> Callable[[], bool]:
    """Return a cheap question for a worker's every step: does the stop file exist? Looks at most every 0.25 s."""
    state = {"next": 0.0, "stop": False}

    def should_stop() -> bool:
        now = time.monotonic()
        if now >= state["next"]:
            state["next"] = now + POLL_SECONDS
            state["stop"] = path.exists()
        return bool(state["stop"])

    return should_stop
