"""What a sweep shows while it runs: a live display on a terminal, a line per finished trial elsewhere."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raypatch.config import TrialConfig
from raypatch.results import EpochRow, TrialResult


class Listener(Protocol):
    """What an executor tells of its trials."""

    def started(self, trial_id: str) -> None:
        """The trial began or went on."""

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        """An epoch is done and safe on disk."""

    def finished(self, result: TrialResult) -> None:
        """The trial is over."""

    def lost(self, trial_id: str) -> None:
        """The trial stopped without a result: asked to, or its process died."""


class SweepProgress:
    """Counts and times of a running sweep; the Listener that every display draws from.

    seconds: expected seconds of each trial that is left, corrected by what was measured (see eta_seconds).
    to_draw: of a search, the expected seconds of each trial that is not drawn yet. notes: what else to show, by topic.
    """

    def __init__(
        self, todo: Sequence[TrialConfig], seconds: Mapping[str, float], *, done: int, side_by_side: int
    ) -> None:
        self.configs = {config.trial_id(): config for config in todo}
        self.seconds = dict(seconds)
        self.already_done = done
        self.side_by_side = side_by_side
        self.to_draw: list[float] = []
        self.notes: dict[str, str] = {}
        self.running: dict[str, EpochRow | None] = {}
        self.results: dict[str, TrialResult] = {}
        self.began = time.monotonic()
        self._measured = 0.0
        self._expected = 0.0

    def started(self, trial_id: str) -> None:
        self.running.setdefault(trial_id, None)

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        self.running[trial_id] = row
        self._measured += row.seconds
        self._expected += self.seconds[trial_id] / self.configs[trial_id].epochs

    def finished(self, result: TrialResult) -> None:
        self.running.pop(result.trial_id, None)
        self.results[result.trial_id] = result

    def lost(self, trial_id: str) -> None:
        self.running.pop(trial_id, None)

    def add(self, config: TrialConfig, seconds: float) -> None:
        """A search drew the next trial."""
        self.configs[config.trial_id()] = config
        self.seconds[config.trial_id()] = seconds
        self.to_draw.remove(min(self.to_draw, key=lambda expected: abs(expected - seconds)))

    def note(self, topic: str, text: str) -> None:
        """Show `text` under `topic` from now on."""
        self.notes[topic] = text

    @property
    def total(self) -> int:
        """All trials: over, running and to come."""
        return self.already_done + len(self.configs) + len(self.to_draw)

    @property
    def failed(self) -> int:
        """Trials of this session that failed."""
        return sum(result.status == "failed" for result in list(self.results.values()))

    @property
    def left(self) -> int:
        """Trials neither over nor running."""
        return len(self.configs) + len(self.to_draw) - len(self.results) - len(self.running)

    def counts(self) -> dict[str, int]:
        """How many trials are in each state; together, all of them. Trials that failed earlier count as done."""
        over = self.already_done + len(self.results)
        return {"done": over - self.failed, "failed": self.failed, "running": len(self.running), "left": self.left}

    def eta_seconds(self) -> float | None:
        """Seconds until the end: expected ones, times measured / expected so far. None before the first epoch.

        Other threads ask too, while trials come and go: hence the copies.
        """
        if not self._expected:
            return None
        pruned = [result.epochs / self.configs[name].epochs for name, result in list(self.results.items())]
        expected = sum(self.to_draw) * (sum(pruned) / len(pruned) if pruned else 1.0)
        for trial_id, config in list(self.configs.items()):
            if trial_id not in self.results:
                row = self.running.get(trial_id)
                expected += self.seconds[trial_id] * (1 - (row.epoch / config.epochs if row else 0.0))
        return expected * self._measured / self._expected / max(1, min(self.side_by_side, self.total))


class LineDisplay(SweepProgress):
    """One line per finished trial, for logs and pipes."""

    def finished(self, result: TrialResult) -> None:
        super().finished(result)
        done, total = self.already_done + len(self.results), self.total
        eta = self.eta_seconds()
        tail = f", about {duration(eta)} left" if eta and done < total else ""
        print(f"[{done}/{total}] {describe_result(result)}{tail}", flush=True)

    def note(self, topic: str, text: str) -> None:
        super().note(topic, text)
        print(f"best of {topic} so far: {text}", flush=True)

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class LiveDisplay(SweepProgress):
    """Counts, ETA and each running trial, redrawn in place twice a second."""

    def __init__(
        self, todo: Sequence[TrialConfig], seconds: Mapping[str, float], *, done: int, side_by_side: int
    ) -> None:
        super().__init__(todo, seconds, done=done, side_by_side=side_by_side)
        self._live = Live(
            get_renderable=self.render, refresh_per_second=2, console=Console(highlight=False, markup=False)
        )

    def finished(self, result: TrialResult) -> None:
        super().finished(result)
        self._live.console.print(describe_result(result), style="red" if result.status == "failed" else None)

    def render(self) -> RenderableType:
        """The display as it is now."""
        done, total = self.already_done + len(self.results), self.total
        eta = self.eta_seconds()
        counts = Text(f"{done}/{total} done, {self.failed} failed, {len(self.running)} running, {self.left} left")
        counts.append(f"  {duration(time.monotonic() - self.began)} elapsed")
        counts.append(f", about {duration(eta)} to go" if eta is not None else ", measuring")
        table = Table(box=None, pad_edge=False, show_edge=False)
        table.add_column("running trial", no_wrap=True, overflow="ellipsis", ratio=1)
        for heading in ("epoch", "val loss", "val AUC", "images/s", "memory"):
            table.add_column(heading, justify="right", no_wrap=True)
        for trial_id, row in list(self.running.items()):
            epochs = self.configs[trial_id].epochs
            if row is None:
                table.add_row(trial_id, f"0/{epochs}", "", "", "", "")
            else:
                figures = (f"{row.val['loss']:.4f}", f"{row.val['auc']:.3f}", f"{row.images_per_second:,.0f}")
                memory = f"{row.peak_memory_bytes / 2**30:.1f} GiB"
                table.add_row(trial_id, f"{row.epoch}/{epochs}", *figures, memory)
        notes = [Text(f"best of {topic} so far: {text}") for topic, text in self.notes.items()]
        return Group(counts, ProgressBar(total=max(1, total), completed=done, width=None), table, *notes)

    def __enter__(self) -> "LiveDisplay":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)


def make_display(
    todo: Sequence[TrialConfig], seconds: Mapping[str, float], *, done: int, side_by_side: int
) -> LiveDisplay | LineDisplay:
    """The display that fits where the output goes."""
    from raypatch.sweep.watch.notebook import NotebookDisplay, in_notebook

    if in_notebook():
        return NotebookDisplay(todo, seconds, done=done, side_by_side=side_by_side)
    kind = LiveDisplay if Console().is_terminal else LineDisplay
    return kind(todo, seconds, done=done, side_by_side=side_by_side)


def describe_result(result: TrialResult) -> str:
    """A finished trial in one line: name, validation figures or the error, seconds. The test set is for the report."""
    if result.status == "failed":
        return f"{result.trial_id} FAILED: {(result.error or 'unknown').strip().splitlines()[-1]}"
    figures = f"val loss {result.val['loss']:.4f} AUC {result.val['auc']:.3f}" if result.val else ""
    if result.status == "pruned":
        return f"{result.trial_id} pruned after {result.epochs} epochs, {figures}"
    return f"{result.trial_id} {figures} in {duration(result.train_seconds)}"


def duration(seconds: float) -> str:
    """Seconds for people: 42s, 3m 05s, 2h 07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
