"""What Ray Tune asks and tells while it runs trials: its callback, stopper, searcher and scheduler.

Ray pickles all four for its own bookkeeping, which nobody reads: the copies keep nothing.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

# First of all, because it makes the settings that ray reads when it is imported.
from raypatch.sweep.services import ray_setup  # noqa: F401

# isort: split
from ray.tune import Stopper
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raypatch.results import SweepPaths
from raypatch.sweep.guard import record_failure
from raypatch.sweep.plan import finished_result
from raypatch.sweep.session import Judge, Listener
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.watch.reported import configs_of, rows_of

NODE_DIED = "its node has died"
"""What Ray says of an actor that went with its node."""

STOP_SECONDS = 8.0
"""How long running trials may take to reach the end of their step before Ray ends them, at the cost of that epoch.

With what Ray itself needs to end, a command is over in 15 s: whoever sent SIGTERM sends SIGKILL later.
"""


class Observer(TrialProgressCallback):
    """Passes Ray's events on to the listener. Ray pickles callbacks; the copy keeps nothing.

    Being a TrialProgressCallback keeps Ray from adding its own, which prints each trial that stops.
    """

    def __init__(self, paths: SweepPaths, listener: Listener, stop: StopRequest) -> None:
        self.paths, self.listener, self.stop = paths, listener, stop
        self.running: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.add(trial.trial_id)
        for config in configs_of(trial):
            self.listener.started(config.trial_id())

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "halt" in result:
            self.stop.halt(result["halt"])
        for trial_id, row in rows_of(result):
            self.listener.epoch(trial_id, row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)
        for config in configs_of(trial):
            trial_id = config.trial_id()
            result = finished_result(self.paths, trial_id)
            if result is None:
                self.listener.lost(trial_id)
            else:
                self.listener.finished(result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)
        for config in configs_of(trial):
            result = finished_result(self.paths, config.trial_id())
            if result is not None:
                # Its worker died after it had written the result.
                self.listener.finished(result)
            elif self.stop.is_set():
                self.listener.lost(config.trial_id())
            else:
                error = trial.get_error() or "the worker died"
                result = record_failure(config, self.paths.trial(config.trial_id()), error)
                self.listener.finished(result)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)
        for config in configs_of(trial):
            self.listener.lost(config.trial_id())
        if NODE_DIED in str(trial.get_error()):
            # This is no failure of the trial's, so it costs none of its tries.
            trial.run_metadata.num_failures -= 1


class StopWhenAsked(Stopper):
    """Ends the experiment on a stop request, once the running trials have stopped by themselves.

    no_room: says why no trial can start any more, None while one can; asks to stop then.
    """

    def __init__(self, stop: StopRequest, observer: Observer, no_room: Callable[[], str | None]) -> None:
        self.stop, self.observer, self.no_room = stop, observer, no_room
        self._stopping: set[str] | None = None
        self._deadline = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self.stop.is_set():
            reason = self.no_room()
            if reason:
                self.stop.halt(reason)
            return False
        if self._stopping is None:
            self._stopping = set(self.observer.running)
            self._deadline = time.monotonic() + STOP_SECONDS
        # Trials that Ray starts after the request see the stop file: they are not waited for.
        still_running = self._stopping & self.observer.running
        return not still_running or time.monotonic() > self._deadline


class Draws(Searcher):
    """Hands Ray the trials, each made or drawn when there is room for it.

    Ray slows down with the length of its own queue. This way one of thousands costs nothing. None says that there is
    nothing to start now, and Ray asks again.
    """

    def __init__(self, specs: Iterator[dict[str, Any] | None]) -> None:
        super().__init__()
        self._specs = specs

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> Any:
        return next(self._specs, Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the observer hears of it too."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trial folders are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the trial folders are the truth."""


class GiveUp(FIFOScheduler):
    """Ends a trial that the judge finds hopeless.

    Its worker waits in the report and never wakes from it, so that its folder is free.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray gives it no types
        self._judge = judge

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        # Trials that are judged are alone in their group.
        for trial_id, row in rows_of(result):
            if self._judge.is_hopeless(trial_id, row):
                self._judge.give_up(trial_id)
                return FIFOScheduler.STOP
        return FIFOScheduler.CONTINUE
