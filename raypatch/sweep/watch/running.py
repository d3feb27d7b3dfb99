"""A sweep while it runs: what is over, running and to come, and how long it will take."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raypatch.config import TrialConfig
from raypatch.results import EpochRow, TrialResult
from raypatch.sweep.watch.wording import describe_result
from raypatch.trial_fields.length import share_done, share_of_row
from raypatch.words import duration

AGREEING = 2.0
"""How far apart what was measured over what was expected may be, among kinds of trials, for these to be trusted."""


def nothing(config: TrialConfig) -> str:
    """Say nothing of a trial but its id."""
    return ""


@dataclass
class _Spent:
    """Seconds of the epochs of some trials: measured, and as they were expected."""

    measured: float = 0.0
    expected: float = 0.0

    @property
    def ratio(self) -> float:
        return self.measured / self.expected


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
        # By kind: trials of which the same seconds are expected.
        self._spent: dict[float, _Spent] = {}
        # By trial: when it was last heard of, and its seconds in this session that were no epoch.
        self._heard: dict[str, float] = {}
        self._besides: dict[str, float] = {}

    def started(self, trial_id: str) -> None:
        self.running.setdefault(trial_id, None)
        self._heard[trial_id] = time.monotonic()
        self._besides.pop(trial_id, None)

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        self.running[trial_id] = row
        self._note_besides(trial_id, row.seconds)
        expected = self.seconds[trial_id]
        spent = self._spent.setdefault(expected, _Spent())
        spent.measured += row.seconds
        spent.expected += expected * share_of_row(self.configs[trial_id], row.epoch, row.step)

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
        """Seconds until the end: the expected ones of epochs, corrected by what was measured, and
        for each trial to come what trials took besides: their start, and the test at their end.

        A kind of trials is corrected by its own epochs; one without any by the median of the others, which no kind
        that was timed wrongly moves much. None before the first epoch.
        """
        ratios = self._ratios()
        if not ratios:
            return None
        usual = statistics.median(ratios.values())
        share = self._share_that_runs()
        trials = [expected * usual * share for expected in self.to_draw]
        # Other threads ask too, while trials come and go: hence the copies here and below.
        for trial_id, config in list(self.configs.items()):
            if trial_id in self.results:
                continue
            row = self.running.get(trial_id)
            done = share_done(config, row.epoch, row.step) if row else 0.0
            expected = self.seconds[trial_id]
            trials.append(expected * ratios.get(expected, usual) * (1 - done))
        side_by_side = max(1, min(self.side_by_side, self.total))
        besides = list(self._besides.values())
        around = self.left * sum(besides) / len(besides) if besides else 0.0
        # No trial is divided: the last one runs alone.
        return max((sum(trials) + around) / side_by_side, *trials, 0.0)

    def time_left(self) -> str | None:
        """The time until the end in words, `about 3m 05s`; None before the first epoch.

        `perhaps` where kinds of trials are to come of which nothing was measured, and those that were measured are one
        alone or were not timed well: each took another multiple of what was expected, as where other work ran beside.
        """
        seconds = self.eta_seconds()
        if seconds is None:
            return None
        ratios = self._ratios()
        left = {self.seconds[trial_id] for trial_id in list(self.configs) if trial_id not in self.results}
        is_known = left.union(self.to_draw) <= ratios.keys()
        agree = len(ratios) > 1 and max(ratios.values()) <= AGREEING * min(ratios.values())
        return f"{'about' if is_known or agree else 'perhaps'} {duration(seconds)}"

    def _ratios(self) -> dict[float, float]:
        """By kind of trials its measured seconds over the expected ones."""
        return {expected: spent.ratio for expected, spent in list(self._spent.items()) if spent.expected}

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
