"""Progress in lines: how far, and how long it will take."""

from raypatch.data.pack import ProgressLines, progress


def test_a_line_says_how_far_it_is_and_how_long_it_takes(monkeypatch):
    clock = iter([0.0, 10.0, 11.0, 20.0, 30.0, 70.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    told = ProgressLines(said.append, every=5)
    told("looked at", 1000, 3000)
    told("looked at", 1100, 3000)  # too soon after the last one
    told("looked at", 3000, 3000)
    told("read", 500, 3000)  # began when the other stage was over
    told("read", 3000, 3000)
    assert said == ["looked at 1,000 of 3,000, about 20s left", "read 500 of 3,000, about 50s left"]
