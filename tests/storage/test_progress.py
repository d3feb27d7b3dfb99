"""Progress in lines: how far, and how long it will take."""

from raypatch.storage import progress
from raypatch.storage.progress import ProgressLines


def test_a_line_says_how_far_it_is_and_how_long_it_takes(monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 21.0, 30.0, 40.0, 50.0, 90.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    told = ProgressLines(said.append, every=5)
    told("looked at", 64, 3064)  # until here workers started
    told("looked at", 1064, 3064)
    told("looked at", 1100, 3064)  # too soon after the last one
    told("looked at", 3064, 3064)
    told("read", 500, 3000)
    told("read", 1000, 3000)
    told("read", 3000, 3000)
    assert said == ["looked at 1,064 of 3,064, about 20s left", "read 1,000 of 3,000, about 40s left"]
