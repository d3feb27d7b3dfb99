"""Progress in lines, where no bar can be drawn: in logs, and while a study resolves its data or a file is read."""

import time
from collections.abc import Callable

from raypatch.words import duration


class ProgressLines:
    """Says from time to time how far a stage is and how long it will take: `read 1,200 of 9,000, about 42s left`.

    every: seconds between two lines.
    """

    def __init__(self, say: Callable[[str], object], every: float = 5.0) -> None:
        self._say = say
        self._every = every
        self._began: dict[str, tuple[float, int]] = {}
        self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take that `done` of `total` are through a stage."""
        now = time.monotonic()
        # Counted from what is done first: until then workers start, which says nothing of the rest.
        began, done_then = self._began.setdefault(stage, (now, done))
        if done in (done_then, total) or now - self._told < self._every:
            return
        self._told = now
        left = (now - began) / (done - done_then) * (total - done)
        self._say(f"{stage} {done:,} of {total:,}, about {duration(left)} left")
