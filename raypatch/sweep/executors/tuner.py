"""Trials on a connected Ray: one Tuner over them. Ray places and restarts them; the trial folders are the truth."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raypatch.sweep import ray_setup  # noqa: F401 - makes the settings that ray reads when it is imported

# isort: split
from ray import tune
from ray.tune import (
    Callback,
    FailureConfig,
    PlacementGroupFactory,
    RunConfig,
    Stopper,
    TuneConfig,
    Tuner,
)
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.trainable import wrap_function

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, SweepPaths
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.node import admit
from raypatch.sweep.executors.ray_cap import place_under_cap, room_watcher
from raypatch.sweep.guard import SweepHaltedError, record_failure, run_guarded
from raypatch.sweep.plan import finished_result
from raypatch.sweep.session import Judge, Listener, Session, Work
from raypatch.sweep.stop import StopRequest, stop_file_watcher
from raypatch.sweep.watch.gauges import sweep_gauges, trial_gauges
from raypatch.training.loop import Interrupted

NODE_DIED = "its node has died"
"""What Ray says of an actor that went with its node."""

STOP_SECONDS = 60.0
"""How long running trials may take to reach the end of their step before Ray ends them."""


def ray_trial(spec: dict[str, Any]) -> None:
    """Run one trial in a Ray worker: a plain dict in, one report per epoch out."""
    os.umask(spec["umask"])  # the worker inherited the private one under which Ray was started
    config = TrialConfig.model_validate(spec["trial"])
    options = RunOptions.model_validate(spec["options"])
    sweep = SweepPaths(Path(spec["folder"]))
    with contextlib.suppress(Interrupted), trial_gauges(config, spec["level"]) as publish:

        def on_epoch(row: EpochRow) -> None:
            publish(row)
            report_epoch(row)

        try:
            if spec["versions"]:
                admit(config, sweep, options, spec["versions"])
            run_guarded(config, sweep, options, on_epoch=on_epoch, should_stop=stop_file_watcher(sweep.stop))
        except SweepHaltedError as halt:
            tune.report({"halt": str(halt)})


def report_epoch(row: EpochRow) -> None:
    """Tell Ray of an epoch, from a trial's worker. The row travels as text: Ray flattens nested results for some."""
    tune.report({"epoch": row.epoch, "row": row.model_dump_json()})


class _Observer(TrialProgressCallback):
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
        self.listener.started(_config(trial).trial_id())

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "halt" in result:
            self.stop.set(result["halt"])
        elif "epoch" in result:
            self.listener.epoch(_config(trial).trial_id(), _row(result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)
        trial_id = _config(trial).trial_id()
        result = finished_result(self.paths, trial_id)
        if result is None:
            self.listener.lost(trial_id)
        else:
            self.listener.finished(result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)
        config = _config(trial)
        result = finished_result(self.paths, config.trial_id())
        if result is not None:  # its worker died after it had written this
            self.listener.finished(result)
        elif self.stop.is_set():
            self.listener.lost(config.trial_id())
        else:
            error = trial.get_error() or "the worker died"
            self.listener.finished(record_failure(config, self.paths.trial(config.trial_id()), error))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)
        self.listener.lost(_config(trial).trial_id())
        if NODE_DIED in str(trial.get_error()):
            trial.run_metadata.num_failures -= 1  # no failure of the trial's: it costs none of its tries


class _StopWhenAsked(Stopper):
    """Ends the experiment on a stop request, once the trials that ran then have stopped by themselves.

    no_room: says why no trial can start any more, None while one can; asks to stop then.
    """

    def __init__(self, stop: StopRequest, observer: _Observer, no_room: Callable[[], str | None]) -> None:
        self.stop, self.observer, self.no_room = stop, observer, no_room
        self._stopping: set[str] | None = None
        self._deadline = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self.stop.is_set():
            if reason := self.no_room():
                self.stop.set(reason)
            return False
        if self._stopping is None:
            self._stopping = set(self.observer.running)
            self._deadline = time.monotonic() + STOP_SECONDS
        return not self._stopping & self.observer.running or time.monotonic() > self._deadline


class _Draws(Searcher):
    """Hands Ray the trials, each made or drawn when there is room for it: a queue of thousands costs nothing."""

    def __init__(self, specs: Iterator[dict[str, Any]]) -> None:
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


class _GiveUp(FIFOScheduler):
    """Ends a trial that the judge finds hopeless. Its worker waits in the report and never wakes from it."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._judge = judge

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        trial_id = _config(trial).trial_id()
        if "epoch" not in result or not self._judge.is_hopeless(trial_id, _row(result)):
            return FIFOScheduler.CONTINUE
        self._judge.give_up(trial_id)
        return FIFOScheduler.STOP


def _ray_trial_of(config: dict[str, Any]) -> None:
    ray_trial(config["spec"])


class RaypatchTrial(wrap_function(_ray_trial_of)):  # type: ignore[misc]
    """The actor of a trial. Ray's dashboard lists it by the name it has when it starts."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory(**config["spec"]["request"])

    def __repr__(self) -> str:
        return _config(self).trial_id()


def run_on_ray(
    session: Session,
    work: Work,
    storage: Path,
    *,
    versions: Mapping[str, str] | None = None,
    actor: type = RaypatchTrial,
) -> None:
    """Run the trials on the Ray that is connected, in order as far as room allows, until done or asked to stop.

    storage: for Ray Tune's own bookkeeping, seen by all nodes. versions: what a node must have
    (see node.identify), where nodes may come and go. actor: the class of the process that runs a
    trial. Raises ValueError when no node has what a trial asks for.
    """
    placement, execution = work.placement, session.execution
    request, at_once = place_under_cap(placement, execution.gpus)
    if work.judge is not None:  # an answer counts for the next draw: no more are drawn than run
        at_once = placement.slots
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_pending(placement))
    observer = _Observer(session.paths, work.listener, session.stop)
    callbacks: list[Callback] = [observer]
    if execution.track != "none":
        from raypatch.sweep.watch.tracking import make_tracker

        callbacks.append(make_tracker(execution.track, session.paths))
    tuner = Tuner(
        actor,
        tune_config=TuneConfig(
            search_alg=_Draws(_specs(session, work, request, versions)),
            scheduler=_GiveUp(work.judge) if work.judge is not None else None,
            num_samples=-1,
            max_concurrent_trials=at_once,
            # The dashboard lists a worker by the trial for which it was started.
            reuse_actors=execution.reuse_actors and not execution.dashboard,
            trial_name_creator=lambda trial: _config(trial).trial_id(),
            trial_dirname_creator=lambda trial: _config(trial).trial_id(),
        ),
        run_config=RunConfig(
            name=session.paths.folder.name,
            storage_path=str(storage / "tune"),
            verbose=0,
            stop=_StopWhenAsked(session.stop, observer, room_watcher(placement.as_bundle(), request)),
            failure_config=FailureConfig(max_failures=execution.retries),
            callbacks=callbacks,
        ),
    )
    running = work.running
    gauges = sweep_gauges(session.paths.folder.name, running) if running is not None else contextlib.nullcontext()
    with gauges:
        tuner.fit()


def _specs(
    session: Session, work: Work, request: Mapping[str, Any], versions: Mapping[str, str] | None
) -> Iterator[dict[str, Any]]:
    """What each trial's worker is told, as plain data; made, and of a search drawn, when there is room for it."""
    umask = os.umask(0o077)
    os.umask(umask)
    options = session.options.model_copy(update={"threads": session.options.threads or work.placement.cpus})
    shared = {
        "folder": str(session.paths.folder),
        "umask": umask,
        "options": options.model_dump(mode="json"),
        "versions": dict(versions) if versions else None,
    }
    for config in work.trials:
        trial_id = config.trial_id()
        bundle = work.placement.as_bundle(trial_id)
        of_trial = {
            "trial": config.model_dump(mode="json"),
            "level": ", ".join(work.levels.get(trial_id, ())),
            "request": {**request, "bundles": [bundle]},
        }
        yield {"spec": shared | of_trial}


def _pending(placement: Placement) -> int:
    """How many trials may wait for their worker at once: all slots fill at a time.

    With one, a worker at hand would take the trial of one that is still starting. But only where
    trials ask for the same: of several that wait, a small one would overtake.
    """
    return placement.slots if len(set(placement.shares.values())) < 2 else 1


def _row(result: dict[str, Any]) -> EpochRow:
    """The epoch that a worker reported."""
    return EpochRow.model_validate_json(result["row"])


def _config(trial: Any) -> TrialConfig:
    return TrialConfig.model_validate(trial.config["spec"]["trial"])
