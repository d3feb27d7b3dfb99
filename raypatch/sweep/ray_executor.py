"""The Ray executor: one Tuner over explicit trials. Ray places and restarts them; the trial folders are the truth."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raypatch.sweep import ray_setup  # noqa: F401 - makes the settings that ray reads when it is imported

# isort: split
from ray import tune
from ray.tune import Callback, FailureConfig, PlacementGroupFactory, RunConfig, Stopper, TuneConfig, Tuner

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, SweepPaths
from raypatch.sweep.guard import SweepHaltedError, record_failure, run_guarded
from raypatch.sweep.placement import Placement
from raypatch.sweep.plan import finished_result
from raypatch.sweep.progress import Listener
from raypatch.sweep.stop import StopRequest, stop_file_watcher
from raypatch.train import Interrupted

STOP_SECONDS = 60.0
"""How long running trials may take to reach the end of their step before Ray ends them."""


def ray_trial(spec: dict[str, Any]) -> None:
    """Run one trial in a Ray worker: a plain dict in, one report per epoch out."""
    os.umask(spec["umask"])  # the worker inherited the private one under which Ray was started
    config = TrialConfig.model_validate(spec["trial"])
    sweep = SweepPaths(Path(spec["folder"]))
    with contextlib.suppress(Interrupted):
        try:
            run_guarded(
                config,
                sweep,
                RunOptions.model_validate(spec["options"]),
                on_epoch=lambda row: tune.report(row.model_dump()),
                should_stop=stop_file_watcher(sweep.stop),
            )
        except SweepHaltedError as halt:
            tune.report({"halt": str(halt)})


class _Observer(Callback):
    """Passes Ray's events on to the listener. Ray pickles callbacks; the copy keeps nothing."""

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
            row = EpochRow.model_validate({name: result[name] for name in EpochRow.model_fields})
            self.listener.epoch(_config(trial).trial_id(), row)

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
        if self.stop.is_set():
            self.listener.lost(config.trial_id())
        else:
            error = trial.get_error() or "the worker died"
            self.listener.finished(record_failure(config, self.paths.trial(config.trial_id()), error))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.trial_id)
        self.listener.lost(_config(trial).trial_id())


class _StopWhenAsked(Stopper):
    """Ends the experiment on a stop request, once the trials that ran then have stopped by themselves."""

    def __init__(self, stop: StopRequest, observer: _Observer) -> None:
        self.stop, self.observer = stop, observer
        self._stopping: set[str] | None = None
        self._deadline = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if not self.stop.is_set():
            return False
        if self._stopping is None:
            self._stopping = set(self.observer.running)
            self._deadline = time.monotonic() + STOP_SECONDS
        return not self._stopping & self.observer.running or time.monotonic() > self._deadline


def run_on_ray(
    todo: Sequence[TrialConfig],
    paths: SweepPaths,
    options: RunOptions,
    *,
    placement: Placement,
    retries: int,
    reuse_actors: bool,
    listener: Listener,
    stop: StopRequest,
) -> None:
    """Run the trials on the Ray that is connected, in order as far as room allows, until done or asked to stop."""
    umask = os.umask(0o077)
    os.umask(umask)
    spec = {"folder": str(paths.folder), "umask": umask, "options": options.model_dump(mode="json")}
    specs = [{**spec, "trial": config.model_dump(mode="json")} for config in todo]
    observer = _Observer(paths, listener, stop)
    with _tune_storage() as storage:
        tuner = Tuner(
            tune.with_resources(_trainable, PlacementGroupFactory([placement.as_bundle()])),
            param_space={"spec": tune.grid_search(specs)},
            tune_config=TuneConfig(
                reuse_actors=reuse_actors,
                trial_name_creator=lambda trial: _config(trial).trial_id(),
                trial_dirname_creator=lambda trial: _config(trial).trial_id(),
            ),
            run_config=RunConfig(
                name=paths.folder.name,
                storage_path=str(storage),
                verbose=0,
                stop=_StopWhenAsked(stop, observer),
                failure_config=FailureConfig(max_failures=retries),
                callbacks=[observer],
            ),
        )
        tuner.fit()


def _trainable(config: dict[str, Any]) -> None:
    ray_trial(config["spec"])


def _config(trial: Any) -> TrialConfig:
    return TrialConfig.model_validate(trial.config["spec"]["trial"])


@contextlib.contextmanager
def _tune_storage() -> Iterator[Path]:
    """A throw-away folder for Ray Tune's own bookkeeping, which nothing of ours reads."""
    folder = Path(tempfile.mkdtemp(prefix="raypatch-tune-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
