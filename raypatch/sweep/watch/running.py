"""A sweep while it runs: what is over, running and to come, and how long it will take."""

import time
from collections.abc import Callable, Mapping, Sequence

from raypatch.config import TrialConfig
from raypatch.results import EpochRow, TrialResult
from raypatch.sweep.watch.wording import describe_result
from raypatch.trial_fields.length import share_done, share_of_row


def nothing(config: TrialConfig) -> str:
    """Say nothing of a trial but its id."""
    return ""


class RunningSweep:
    """Counts and times of a running sweep; the Listener that every display draws from.

    seconds: expected seconds of each trial that is left, corrected by what was measured (see
    eta_seconds). to_draw: of a search, the expected seconds of each trial that is not drawn yet.
    notes: what else to show, by topic. varied: words the fields of a trial that differ in its sweep.
    """

    def __init__(
        self,
        todo: Sequence[TrialConfig],
        seconds: Mapping[str, float],
        *,
        done: int,
        side_by_side: int,
        varied: Callable[[TrialConfig], str] = nothing,
    ) -> None:
        self.varied = varied
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
        # By trial: when it was last heard of, and its seconds in this session that were no epoch.
        self._heard: dict[str, float] = {}
        self._besides: dict[str, float] = {}

    def started(self, trial_id: str) -> None:
        self.running.setdefault(trial_id, None)
        self._heard[trial_id] = time.monotonic()
        self._besides.pop(trial_id, None)

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        self.running[trial_id] = row
        self._measured += row.seconds
        self._note_besides(trial_id, row.seconds)
        self._expected += self.seconds[trial_id] * share_of_row(self.configs[trial_id], row.epoch, row.step)

    def finished(self, result: TrialResult) -> None:
        self.running.pop(result.trial_id, None)
        self._note_besides(result.trial_id, 0.0)
        self.results[result.trial_id] = result

    def lost(self, trial_id: str) -> None:
        self.running.pop(trial_id, None)

    def add(self, config: TrialConfig, seconds: float) -> None:
        """A search drew the next trial: it takes the place of the sample to draw that it resembles most."""
        self.configs[config.trial_id()] = config
        self.seconds[config.trial_id()] = seconds
        closest = min(self.to_draw, key=lambda expected: abs(expected - seconds))
        self.to_draw.remove(closest)

    def note(self, topic: str, text: str) -> None:
        """Show `text` under `topic` from now on."""
        self.notes[topic] = text

    def describe(self, result: TrialResult) -> str:
        """A finished trial in one line."""
        config = self.configs[result.trial_id]
        return describe_result(config, result, self.varied(config))

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
        """How many trials are in each state; together, all of them.

        Trials that failed in an earlier session count as done.
        """
        over = self.already_done + len(self.results)
        return {
            "done": over - self.failed,
            "failed": self.failed,
            "running": len(self.running),
            "left": self.left,
        }

    def eta_seconds(self) -> float | None:
        """Seconds until the end: the expected ones of epochs, times measured / expected so far, and
        for each trial to come what trials took besides: their start, and the test at their end.

        None before the first epoch.
        """
        if not self._expected:
            return None
        expected = sum(self.to_draw) * self._share_that_runs()
        # Other threads ask too, while trials come and go: hence the copies here and below.
        for trial_id, config in list(self.configs.items()):
            if trial_id in self.results:
                continue
            row = self.running.get(trial_id)
            done = share_done(config, row.epoch, row.step) if row else 0.0
            expected += self.seconds[trial_id] * (1 - done)
        side_by_side = max(1, min(self.side_by_side, self.total))
        besides = list(self._besides.values())
        around = self.left * sum(besides) / len(besides) if besides else 0.0
        return (expected * self._measured / self._expected + around) / side_by_side

    def _note_besides(self, trial_id: str, epoch_seconds: float) -> None:
        """Count what passed since the trial was last heard of, without its epoch."""
        now = time.monotonic()
        passed = max(0.0, now - self._heard.get(trial_id, now) - epoch_seconds)
        self._besides[trial_id] = self._besides.get(trial_id, 0.0) + passed
        self._heard[trial_id] = now

    def _share_that_runs(self) -> float:
        """The mean share of their epochs that trials ran so far: a search gives some of them up."""
        results = list(self.results.items())
        if not results:
            return 1.0
        shares = [result.epochs / self.configs[trial_id].epochs for trial_id, result in results]
        return sum(shares) / len(results)
