"""A sweep from its space to its finished trials: resolve, check, plan, execute, count."""

import contextlib
import datetime
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from raypatch.config import RunOptions, TrialConfig
from raypatch.files import hold_lock, write_atomically
from raypatch.resolve import resolve_search, resolve_trials
from raypatch.results import SweepPaths, SweepRecord, read_sweep, write_json
from raypatch.runtime import provenance, resolve_device, total_memory
from raypatch.study import Study
from raypatch.sweep.cost.placement import Placement, check_room, place_trials
from raypatch.sweep.executors.local import run_locally
from raypatch.sweep.plan import Plan, plan_sweep, rough_seconds
from raypatch.sweep.preflight import check_address, check_before_start, check_folder, check_monitoring, check_space
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.tuning.recipes import describe_search, summarize_search, write_recipes
from raypatch.sweep.watch.progress import Listener, make_display

if TYPE_CHECKING:
    from raypatch.sweep.executors.cluster import Cluster
    from raypatch.sweep.tuning.search import SearchRun


class ExecutorOptions(BaseModel):
    """How the trials of a sweep are executed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["ray", "local"] = Field("ray", description="Ray Tune, or one by one in this process.")
    address: str = Field("local", description="local: a Ray of its own here; else of a cluster: HOST:PORT or auto.")
    gpus: int = Field(1, ge=1, description="Physical GPUs that the whole sweep may use.")
    gpu_share: float | None = Field(
        None, gt=0, le=1, description="Share of a GPU per trial; default by each trial's memory and load."
    )
    cpus_per_trial: int | None = Field(None, ge=1, description="Cores of one trial; default all, or 1 beside a GPU.")
    reuse_actors: bool = Field(True, description="Keep worker processes between trials.")
    retries: int = Field(2, ge=0, description="Further tries of a crashed trial, from its checkpoint.")
    dashboard: bool = Field(False, description="Serve Ray's dashboard; each trial then has a worker of its own name.")
    track: Literal["none", "mlflow", "wandb"] = Field("none", description="Experiment tracker to tell of each epoch.")


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended, recounted from the files.

    stopped: why it ended early, None when it ran through. again: the command that continues. errors: of the failed
    trials, by trial id. table: of a search, what it found.
    """

    folder: Path
    ok: int
    left: int
    errors: Mapping[str, str]
    stopped: str | None
    again: str
    table: str | None = None


def run_sweep(
    study: Study,
    folder: Path,
    options: RunOptions,
    how: ExecutorOptions,
    *,
    time_limit: float | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Run, or continue, the sweep of `study` in `folder`. time_limit: seconds.

    Raises ValueError for wrong input and LockedError for a folder in use, before anything starts.
    """
    trials: tuple[TrialConfig, ...] = ()
    levels: dict[str, tuple[str, ...]] = {}
    search = None
    if study.search is None:
        resolved = resolve_trials(study)
        trials, levels, factors, files = resolved.trials, resolved.levels, resolved.factors, resolved.files
    else:
        found = resolve_search(study)
        search, factors, files = found.search, found.factors, found.files
    record = SweepRecord(
        name=folder.name,
        study=study.name,
        command=tuple(sys.argv),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        provenance=provenance(),
        options=options.model_copy(update={"files": files}).model_dump(mode="json"),
        executor=how.model_dump(mode="json"),
        search=search,
        factors=factors,
        levels=levels,
        metric=study.metric,
        expect=study.expect,
        trials=trials,
    )
    content = study.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = yaml.safe_dump(content, sort_keys=False)
    return _run(record, folder, text, time_limit=time_limit, retry_failed=retry_failed)


def resume_sweep(
    folder: Path, changes: Mapping[str, Any], *, time_limit: float | None = None, retry_failed: bool = False
) -> Outcome:
    """Continue the last command of a run folder, wherever the folder now lies.

    changes: fields of RunOptions and ExecutorOptions to have otherwise than last time; None leaves one as it was.
    """
    record = read_sweep(SweepPaths(folder).record)
    given = {name: value for name, value in changes.items() if value is not None}
    options = {**record.options, **{name: value for name, value in given.items() if name in RunOptions.model_fields}}
    how = {**record.executor, **{name: value for name, value in given.items() if name in ExecutorOptions.model_fields}}
    options = RunOptions.model_validate(options).model_dump(mode="json")
    record = record.model_copy(update={"options": options, "executor": how})
    return _run(record, folder, None, time_limit=time_limit, retry_failed=retry_failed)


def _run(
    record: SweepRecord, folder: Path, space: str | None, *, time_limit: float | None, retry_failed: bool
) -> Outcome:
    options, how = RunOptions.model_validate(record.options), ExecutorOptions.model_validate(record.executor)
    check_monitoring(how.executor, dashboard=how.dashboard, track=how.track)
    check_address(how.address, how.executor, dashboard=how.dashboard)
    trials = record.search.extremes if record.search else record.trials
    with _join(how.address, options) as cluster:
        if cluster:
            paths = check_folder(folder.absolute())
            cluster.check(trials, paths, gpus=how.gpus, cpus=how.cpus_per_trial)
            options = options.model_copy(update={"device": "auto"})  # this machine only plans, perhaps without a GPU
        else:
            check_before_start(trials, options, executor=how.executor, say=_say)
            check_room(options.device, gpus=how.gpus, cpus=how.cpus_per_trial)
            paths = check_folder(folder.absolute())
        return _carry_out(record, paths, space, options, how, cluster, time_limit=time_limit, retry_failed=retry_failed)


@contextlib.contextmanager
def _join(address: str, options: RunOptions) -> "Iterator[Cluster | None]":
    """Connect to the cluster at `address`; gives None for `local`."""
    if address == "local":
        yield None
        return
    from raypatch.sweep.executors.ray_setup import joined_ray

    with joined_ray(address):
        from raypatch.sweep.executors.cluster import Cluster

        yield Cluster(_say, options)


def _carry_out(
    record: SweepRecord,
    paths: SweepPaths,
    space: str | None,
    options: RunOptions,
    how: ExecutorOptions,
    cluster: "Cluster | None",
    *,
    time_limit: float | None,
    retry_failed: bool,
) -> Outcome:
    stop = StopRequest(paths.stop)
    with hold_lock(paths.lock):
        shutil.rmtree(paths.bookkeeping, ignore_errors=True)  # what a killed session left
        search = _take_up_search(record, paths, options, retry_failed=retry_failed)
        record = search.record if search else record
        plan = plan_sweep(record.trials, paths, options, retry_failed=retry_failed)
        expected = [*plan.todo, *(search.undrawn if search else ())]
        with stop.listening(time_limit) if expected else contextlib.nullcontext():
            placement = _place(expected, options, how, cluster) if expected else None
            if placement:
                check_space(expected, paths, options, side_by_side=placement.slots)
            write_json(paths.record, record)
            if space is not None:
                write_atomically(paths.space, space.encode())
            total = len(plan.results) + len(expected)
            _say(f"{len(plan.results)} of {total} trials are over, {len(expected)} to run, in {paths.folder}")
            if placement:
                _execute(plan, paths, options, how, placement, stop, search, cluster)
        record = search.record if search else record
        after = plan_sweep(record.trials, paths, options)
        left = len(after.todo) + (len(search.undrawn) if search else 0)
        table = None
        if search:
            found = summarize_search(record, paths)
            table = describe_search(record, found)
            if not left:
                write_recipes(paths.recipes, record, found)
    errors = {name: result.error or "" for name, result in after.results.items() if result.status == "failed"}
    again = f"raypatch resume {shlex.quote(str(paths.folder))}{' --retry-failed' if retry_failed else ''}"
    return Outcome(paths.folder, len(after.results) - len(errors), left, errors, stop.reason, again, table)


def _take_up_search(
    record: SweepRecord, paths: SweepPaths, options: RunOptions, *, retry_failed: bool
) -> "SearchRun | None":
    if record.search is None:
        return None
    from raypatch.sweep.tuning.search import SearchRun

    return SearchRun(record, paths, options, retry_failed=retry_failed)


def _execute(
    plan: Plan,
    paths: SweepPaths,
    options: RunOptions,
    how: ExecutorOptions,
    placement: Placement,
    stop: StopRequest,
    search: "SearchRun | None",
    cluster: "Cluster | None",
) -> None:
    seconds = {config.trial_id(): rough_seconds(config, options) for config in plan.todo}
    options = cluster.options if cluster else options
    options = options.model_copy(update={"threads": options.threads or placement.cpus})
    with make_display(plan.todo, seconds, done=len(plan.results), side_by_side=placement.slots) as display:
        if search:
            search.show_on(display)
        listener: Listener = search or display
        if how.executor == "local":
            run_locally(plan.todo, paths, options, retries=how.retries, listener=listener, stop=stop, search=search)
            return
        from raypatch.sweep.executors.ray import run_on_ray
        from raypatch.sweep.watch.gauges import sweep_gauges

        with (
            _storage(paths, how, placement, cluster) as storage,
            sweep_gauges(paths.folder.name, display),
        ):
            run_on_ray(
                plan.todo,
                paths,
                options,
                placement=placement,
                gpus=how.gpus,
                storage=storage,
                retries=how.retries,
                reuse_actors=how.reuse_actors and not how.dashboard,
                track=how.track,
                listener=listener,
                stop=stop,
                search=search,
                versions=cluster.versions if cluster else None,
            )


def _place(
    expected: Sequence[TrialConfig], options: RunOptions, how: ExecutorOptions, cluster: "Cluster | None"
) -> Placement:
    if cluster:
        return cluster.place(expected, gpus=how.gpus, share=how.gpu_share, cpus=how.cpus_per_trial)
    cores = _cores()
    device = resolve_device(options.device)
    card_bytes = total_memory(device) if device.type == "cuda" else None
    if card_bytes is None and how.executor == "local":
        return Placement(how.cpus_per_trial or cores, 0.0, 1)
    placement = place_trials(
        expected,
        options,
        gpus=how.gpus,
        share=how.gpu_share,
        cpus=how.cpus_per_trial,
        cores=cores,
        card_bytes=card_bytes,
        say=_say,
    )
    return replace(placement, slots=1) if how.executor == "local" else placement


@contextlib.contextmanager
def _storage(
    paths: SweepPaths, how: ExecutorOptions, placement: Placement, cluster: "Cluster | None"
) -> Iterator[Path]:
    """Room for Ray Tune's own bookkeeping, gone at the end: on a cluster in the run folder, which all nodes see.

    Else that of a Ray started here.
    """
    if cluster is None:
        from raypatch.sweep.executors.ray_setup import local_ray

        cpus, gpus = max(_cores(), placement.slots * placement.cpus), how.gpus if placement.gpu_share else 0
        with local_ray(cpus=cpus, gpus=gpus, dashboard=how.dashboard) as session:
            yield session
        return
    paths.bookkeeping.mkdir()
    try:
        yield paths.bookkeeping
    finally:
        shutil.rmtree(paths.bookkeeping, ignore_errors=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _say(text: str) -> None:
    print(text, flush=True)
