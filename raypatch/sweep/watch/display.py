"""What a sweep shows while it runs: a live display on a terminal, elsewhere a line per trial."""

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raypatch.config import TrialConfig
from raypatch.results import EpochRow, TrialResult
from raypatch.sweep.watch.names import short_id
from raypatch.sweep.watch.running import RunningSweep, nothing
from raypatch.sweep.watch.wording import other_selection
from raypatch.trial_fields.length import words_done
from raypatch.words import duration


class LineDisplay(RunningSweep):
    """One line per finished trial, for logs and pipes."""

    def finished(self, result: TrialResult) -> None:
        super().finished(result)
        done, total = self.already_done + len(self.results), self.total
        left = self.time_left()
        text = self.describe(result)
        tail = f", {left} left" if left is not None and done < total else ""
        # Python keeps what goes to a pipe back until there is a block of it.
        print(f"[{done}/{total}] {text}{tail}", flush=True)

    def note(self, topic: str, text: str) -> None:
        super().note(topic, text)
        print(f"best of {topic} so far: {text}", flush=True)

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class LiveDisplay(RunningSweep):
    """Counts, ETA and each running trial, redrawn in place twice a second."""

    def __init__(
        self,
        todo: Sequence[TrialConfig],
        seconds: Mapping[str, float],
        *,
        done: int,
        side_by_side: int,
        varied: Callable[[TrialConfig], str] = nothing,
    ) -> None:
        super().__init__(todo, seconds, done=done, side_by_side=side_by_side, varied=varied)
        self._live = Live(
            get_renderable=self.render,
            refresh_per_second=2,
            console=Console(highlight=False, markup=False),
        )

    def finished(self, result: TrialResult) -> None:
        super().finished(result)
        line = self.describe(result)
        self._live.console.print(line, style="red" if result.status == "failed" else None)

    def render(self) -> RenderableType:
        """The display as it is now."""
        done, total = self.already_done + len(self.results), self.total
        left = self.time_left()
        text = f"{done}/{total} done, {self.failed} failed, {len(self.running)} running, {self.left} left"
        counts = Text(text)
        counts.append(f"  {duration(time.monotonic() - self.began)} elapsed")
        counts.append(", measuring" if left is None else f", {left} to go")
        notes = [Text(f"best of {topic} so far: {text}") for topic, text in self.notes.items()]
        bar = ProgressBar(total=max(1, total), completed=done, width=None)
        return Group(counts, bar, self._running_trials(), *notes)

    def _running_trials(self) -> Table:
        """A row per running trial; beside the loss a column for each score by which one selects."""
        # rich draws from a thread of its own, while trials come and go: hence the copy.
        running = list(self.running.items())
        selections: list[str] = []
        for trial_id, _ in running:
            metric = other_selection(self.configs[trial_id])
            if metric is not None and metric not in selections:
                selections.append(metric)
        table = Table(box=None, pad_edge=False, show_edge=False)
        table.add_column("running trial", no_wrap=True, overflow="ellipsis", ratio=1)
        scores = [f"val {metric.replace('_', ' ')}" for metric in ("loss", *selections)]
        for heading in ("epoch", *scores, "images/s", "memory"):
            table.add_column(heading, justify="right", no_wrap=True)
        for trial_id, row in running:
            name = f"{short_id(self.configs[trial_id])} {self.varied(self.configs[trial_id])}".rstrip()
            shown = Text(name)
            if row is not None and row.alarm is not None:
                # Before the name, whose end is cut off where the terminal is narrow.
                shown = Text(f"{row.alarm}: ", style="bold yellow") + shown
            table.add_row(shown, *_cells(self.configs[trial_id], row, selections))
        return table

    def __enter__(self) -> "LiveDisplay":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)


def _cells(config: TrialConfig, row: EpochRow | None, selections: Sequence[str]) -> list[str]:
    """What the live display shows of a running trial after its name."""
    if row is None:
        return [words_done(config, 0, 0)]
    cells = [words_done(config, row.epoch, row.step), f"{row.val['loss']:.4f}"]
    for metric in selections:
        # The table may have a column for another trial's score.
        cells.append(f"{row.val[metric]:.3f}" if metric in row.val else "")
    return [*cells, f"{row.images_per_second:,.0f}", f"{row.peak_memory_bytes / 2**30:.1f} GiB"]
