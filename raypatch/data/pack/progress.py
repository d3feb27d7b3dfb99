"""Progress of a packing in lines, where no bar can be drawn: in logs, and while a study resolves its data."""

import time

from raypatch.data.pack.listing import Say
from raypatch.words import duration


class ProgressLines:
    """Says from time to time how far a stage is and how long it will take: `read 1,200 of 9,000, about 42s left`.

    every: seconds between two lines.
    """

    def __init__(self, say: Say, every: float = 5.0) -> None:
        self._say = say
        self._every = every
        self._began: dict[str, float] = {}
        self._last = self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take that `done` of `total` are through a stage."""
        now = time.monotonic()
        # A stage is heard of when some of it is done: it began where the one before ended.
        began = self._began.setdefault(stage, self._last)
        self._last = now
        if done in (0, total) or now - self._told < self._every:
            return
        self._told = now
        left = (now - began) / done * (total - done)
        self._say(f"{stage} {done:,} of {total:,}, about {duration(left)} left")
