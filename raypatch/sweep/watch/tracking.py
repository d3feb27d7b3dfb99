"""Experiment trackers, MLflow or Weights & Biases, told of a sweep through Ray's own callbacks for them."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

# First of all, because it makes the settings that ray reads when it is imported.
from raypatch.sweep.services import ray_setup  # noqa: F401

# isort: split
from ray.tune import Callback

from raypatch.results import SweepPaths, read_epochs
from raypatch.sweep.plan import finished_result
from raypatch.sweep.watch.reported import configs_of, rows_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Trial:
    """A trial as a tracker's callback reads it, with the sweep's own names and fields, not Tune's."""

    trial_id: str
    name: str
    config: dict[str, Any] = field(compare=False)
    local_path: str
    experiment_dir_name: str

    def __str__(self) -> str:
        return self.name


class Tracker(Callback):
    """Tells an experiment tracker of every trial and epoch, through Ray's callback for it.

    A trial that goes on is told from its first epoch, as a run of its own. A tracker that fails
    later is left alone: the sweep goes on. Ray pickles callbacks; the copy keeps nothing.
    """

    def __init__(self, name: str, inner: Any, paths: SweepPaths) -> None:
        self.name, self.paths = name, paths
        self._inner = inner
        self._told: dict[_Trial, int] = {}
        self._broken = False

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def setup(
        self,
        stop: Any = None,
        num_samples: Any = None,
        total_num_samples: Any = None,
        **info: Any,
    ) -> None:
        try:
            self._inner.setup()
        except Exception as error:
            # Each tracker has its own kinds, and all mean that it cannot be reached or used.
            raise ValueError(f"--track {self.name} cannot start: {error}") from error

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for view in self._views(trial).values():
            self._tell(partial(self._inner.log_trial_start, view))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        last_epochs = {trial_id: row.epoch for trial_id, row in rows_of(result)}
        if not last_epochs:
            return
        views = self._views(trial)
        for trial_id, epoch in last_epochs.items():
            self._tell(partial(self._tell_epochs, views[trial_id], epoch))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for trial_id, view in self._views(trial).items():
            result = finished_result(self.paths, trial_id)
            self._end(view, failed=result is None or result.status == "failed")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for view in self._views(trial).values():
            self._end(view, failed=True)

    def _end(self, view: _Trial, *, failed: bool) -> None:
        self._tell(lambda: self._inner.log_trial_end(view, failed=failed))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._tell(lambda: self._inner.on_experiment_end([], **info))

    def _views(self, trial: Any) -> dict[str, _Trial]:
        """The trials of a group as the tracker's callback reads them, by their ids."""
        views = {}
        for number, config in enumerate(configs_of(trial)):
            fields = config.model_dump(mode="json")
            # To Ray a group is one trial; a tracker tells them apart by this.
            own_id = f"{trial.trial_id}-{number}" if number else trial.trial_id
            sweep = self.paths.folder.name
            views[config.trial_id()] = _Trial(own_id, config.trial_id(), fields, trial.local_path, sweep)
        return views

    def _tell_epochs(self, view: _Trial, epoch: int) -> None:
        # From the file, not Ray's result: after a resume the tracker lacks earlier epochs.
        for row in read_epochs(self.paths.trial(view.name).epochs):
            if self._told.get(view, 0) < row.epoch <= epoch:
                self._inner.log_trial_result(epoch, view, {**row.flat(), "training_iteration": row.epoch})
                self._told[view] = row.epoch

    def _tell(self, tell: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            tell()
        except Exception as error:
            # As in setup, of any kind; here none must end the sweep.
            self._broken = True
            logger.warning("--track %s stopped: %s", self.name, error)


def make_tracker(name: str, paths: SweepPaths) -> Tracker:
    """Return a tracker, by name.

    mlflow: at $MLFLOW_TRACKING_URI, else in the run folder. wandb: Weights & Biases, under the project
    $WANDB_PROJECT.
    """
    if name == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.mlflow}"
        callback: Callback = MLflowLoggerCallback(tracking_uri=store, experiment_name=paths.folder.name)
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        return Tracker(name, callback, paths)
    return Tracker(name, _wandb_callback(paths), paths)


def _wandb_callback(paths: SweepPaths) -> Callback:
    from ray.air.integrations import wandb

    class Actor(wandb._WandbLoggingActor):
        """Writes a run out before it ends.

        Ray kills it once it has run. W&B's own process, which still writes the run then, would die
        with it.
        """

        def run(self) -> None:
            super().run()  # type: ignore[no-untyped-call]  # Ray gives it no types
            # This waits for W&B's process.
            self._wandb.teardown()

    class WandbCallback(wandb.WandbLoggerCallback):
        _logger_actor_cls = Actor

    project = os.environ.get("WANDB_PROJECT", "raypatch")
    callback: Callback = WandbCallback(project=project, group=paths.folder.name, dir=str(paths.folder))
    return callback
