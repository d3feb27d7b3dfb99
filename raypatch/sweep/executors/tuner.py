"""Trials on a connected Ray: one Tuner over them.

Ray places and restarts the trials; what has come of them stands in their folders alone.
"""

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# First of all, because it makes the settings that ray reads when it is imported.
from raypatch.sweep.services import ray_setup  # noqa: F401

# isort: split
from ray import tune
from ray.tune import (
    Callback,
    FailureConfig,
    PlacementGroupFactory,
    RunConfig,
    TuneConfig,
    Tuner,
)
from ray.tune.trainable import wrap_function

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, SweepPaths
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.node import admit
from raypatch.sweep.executors.ray_cap import place_under_cap, room_watcher
from raypatch.sweep.executors.tune_hooks import Draws, GiveUp, Observer, StopWhenAsked
from raypatch.sweep.guard import SweepHaltedError, run_group_guarded, run_guarded
from raypatch.sweep.parents import ready_groups
from raypatch.sweep.session import Session, Work
from raypatch.sweep.stop import stop_file_watcher
from raypatch.sweep.watch.gauges import sweep_gauges, trial_gauges
from raypatch.sweep.watch.reported import name_of, report_of
from raypatch.training.loop import Interrupted

REPORT_SECONDS = 0.5
"""How often a group of trials tells of its epochs."""


def ray_trial(spec: dict[str, Any]) -> None:
    """Run the trials of a group in a Ray worker: a plain dict in, reports of their epochs out."""
    # The worker inherited the private umask under which Ray was started.
    os.umask(spec["umask"])
    configs = [TrialConfig.model_validate(fields) for fields in spec["trials"]]
    options = RunOptions.model_validate(spec["options"])
    sweep = SweepPaths(Path(spec["folder"]))
    with contextlib.suppress(Interrupted), contextlib.ExitStack() as stack:
        publish = {}
        for config, level in zip(configs, spec["levels"], strict=True):
            publish[config.trial_id()] = stack.enter_context(trial_gauges(config, level))
        # Of one trial each epoch is told at once, as a judge may wait for it.
        reports = Reports(every_seconds=REPORT_SECONDS if len(configs) > 1 else 0.0)

        def on_epoch(trial_id: str, row: EpochRow) -> None:
            publish[trial_id](row)
            reports.add(trial_id, row)

        try:
            if spec["versions"]:
                for config in configs:
                    admit(config, sweep, options, spec["versions"])
            should_stop = stop_file_watcher(sweep.stop)
            if len(configs) == 1:
                tell = functools.partial(on_epoch, configs[0].trial_id())
                run_guarded(configs[0], sweep, options, on_epoch=tell, should_stop=should_stop)
            else:
                # The results stand in the folders, where the driver looks.
                for _ in run_group_guarded(configs, sweep, options, on_epoch=on_epoch, should_stop=should_stop):
                    pass
                reports.send()
        except SweepHaltedError as halt:
            tune.report({"halt": str(halt)})


class Reports:
    """Tells Ray of epochs, from a worker; a report costs milliseconds, so that many rows share one.

    every_seconds: how long rows are gathered; 0 tells each at once.
    """

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._rows: list[tuple[str, EpochRow]] = []
        self._sent = time.monotonic()

    def add(self, trial_id: str, row: EpochRow) -> None:
        self._rows.append((trial_id, row))
        if time.monotonic() - self._sent >= self._every_seconds:
            self.send()

    def send(self) -> None:
        """Tell what is gathered."""
        if self._rows:
            rows, self._rows = self._rows, []
            tune.report(report_of(rows))
        self._sent = time.monotonic()


def _ray_trial_of(config: dict[str, Any]) -> None:
    ray_trial(config["spec"])


class RaypatchTrial(wrap_function(_ray_trial_of)):  # type: ignore[misc]  # a class that Ray makes
    """The actor of a trial. Ray's dashboard lists it by the name it has when it starts."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory(**config["spec"]["request"])

    def __repr__(self) -> str:
        return name_of(self)


def run_on_ray(
    session: Session,
    work: Work,
    storage: Path,
    *,
    versions: Mapping[str, str] | None = None,
    actor: type = RaypatchTrial,
) -> None:
    """Run the trials on the Ray that is connected, in order as far as room allows.

    Returns when all are over, or after a stop request. storage: for Ray Tune's own bookkeeping,
    seen by all nodes. versions: what a node must have (see node.identify), where nodes may come
    and go. actor: the class of the process that runs a trial. Raises ValueError when no node has
    what a trial asks for.
    """
    placement, execution = work.placement, session.execution
    request, at_once = place_under_cap(placement, execution.gpus)
    if work.judge is not None:
        # Every score helps the next draw, so no more trials are drawn than can run.
        at_once = placement.slots
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_pending(placement))
    observer = Observer(session.paths, work.listener, session.stop)
    callbacks: list[Callback] = [observer]
    if execution.track != "none":
        from raypatch.sweep.watch.tracking import make_tracker

        callbacks.append(make_tracker(execution.track, session.paths))
    no_room = room_watcher(placement.as_bundle(), request)
    tuner = Tuner(
        actor,
        tune_config=TuneConfig(
            search_alg=Draws(_specs(session, work, request, versions)),
            scheduler=GiveUp(work.judge) if work.judge is not None else None,
            # As many as there are draws: Draws says when it has no more.
            num_samples=-1,
            max_concurrent_trials=at_once,
            # The dashboard lists a worker by the trial for which it was started.
            reuse_actors=execution.reuse_actors and not execution.dashboard,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=RunConfig(
            name=session.paths.folder.name,
            storage_path=str(storage / "tune"),
            verbose=0,
            stop=StopWhenAsked(session.stop, observer, no_room),
            failure_config=FailureConfig(max_failures=execution.retries),
            callbacks=callbacks,
        ),
    )
    with _gauges_of(work, session.paths.folder.name):
        tuner.fit()


def _gauges_of(work: Work, name: str) -> contextlib.AbstractContextManager[None]:
    """The gauges of a sweep, where its trials are counted."""
    if work.running is None:
        return contextlib.nullcontext()
    return sweep_gauges(name, work.running)


def _specs(
    session: Session, work: Work, request: Mapping[str, Any], versions: Mapping[str, str] | None
) -> Iterator[dict[str, Any] | None]:
    """Yield what each trial's worker is told, as plain data; None while those that are left wait for others.

    It is made, and of a search drawn, when there is room for the trial.
    """
    # The umask can only be read by setting it.
    umask = os.umask(0o077)
    os.umask(umask)
    threads = session.options.threads or work.placement.cpus
    options = session.options.model_copy(update={"threads": threads})
    shared = {
        "folder": str(session.paths.folder),
        "umask": umask,
        "versions": dict(versions) if versions else None,
    }
    for group in ready_groups(work.groups, session.paths, work.listener):
        if group is None:
            yield None
            continue
        ids = [config.trial_id() for config in group]
        # Those of a group share a model, so that the first one asks for all.
        bundle = work.placement.as_bundle(ids[0])
        of_trial = options.model_copy(update={"card_share": min(1.0, bundle.get("GPU", 1.0))})
        of_group = {
            "options": of_trial.model_dump(mode="json"),
            "trials": [config.model_dump(mode="json") for config in group],
            "levels": [", ".join(work.levels.get(trial_id, ())) for trial_id in ids],
            "request": {**request, "bundles": [bundle]},
        }
        yield {"spec": shared | of_group}


def _pending(placement: Placement) -> int:
    """How many trials may wait for their worker at once."""
    # With one at a time, a worker at hand would take the trial of one that is still starting.
    # With several that ask for different shares, a small one would overtake those before it.
    all_ask_the_same = len(set(placement.shares.values())) < 2
    return placement.slots if all_ask_the_same else 1
