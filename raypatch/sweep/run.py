"""A sweep from its space to its finished trials: resolve, check, plan, execute, count."""

import datetime
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from raypatch.config import RunOptions
from raypatch.files import hold_lock
from raypatch.results import SweepPaths, SweepRecord, write_json
from raypatch.runtime import provenance, resolve_device
from raypatch.files import write_atomically
from raypatch.space import SearchSpace, resolve_trials
from raypatch.sweep.local import run_locally
from raypatch.sweep.plan import Plan, plan_sweep, rough_seconds
from raypatch.sweep.preflight import check_before_start, check_folder
from raypatch.sweep.progress import make_display
from raypatch.sweep.stop import StopRequest


@dataclass(frozen=True)
class ExecutorOptions:
    """How the trials are executed.

    gpus: physical GPUs the whole sweep may use. gpu_share: of one GPU per trial, on a machine that has one.
    cpus_per_trial: cores of one trial; without a GPU, cores / cpus_per_trial trials run side by side.
    time_limit: seconds. retries: of a crashed trial.
    """

    executor: Literal["ray", "local"] = "ray"
    gpus: int = 1
    gpu_share: float = 1.0
    cpus_per_trial: int | None = None
    reuse_actors: bool = True
    retries: int = 2
    time_limit: float | None = None
    retry_failed: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended, recounted from the files. stopped: why it ended early, None when it ran through."""

    folder: Path
    ok: int
    failed: int
    left: int
    stopped: str | None = None
    errors: dict[str, str] = field(default_factory=dict)


def run_sweep(space: SearchSpace, folder: Path, options: RunOptions, how: ExecutorOptions) -> Outcome:
    """Run, or continue, the sweep of `space` in `folder`. Raises ValueError for wrong input before anything starts."""
    trials, files = resolve_trials(space)
    options = options.model_copy(update={"files": files})
    check_before_start(trials, options, say=lambda text: print(text, flush=True))
    paths = check_folder(folder.absolute())
    with hold_lock(paths.lock):
        record = SweepRecord(
            name=paths.folder.name,
            space=space.name,
            command=tuple(sys.argv),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            provenance=provenance(),
            files={name: str(path) for name, path in files.items()},
            trials=tuple(trials),
        )
        write_json(paths.record, record)
        text = yaml.safe_dump(space.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=False)
        write_atomically(paths.space, text.encode())
        plan = plan_sweep(trials, paths, files, retry_failed=how.retry_failed)
        print(
            f"{len(plan.results)} of {plan.total} trials are over, {len(plan.todo)} to run, in {paths.folder}",
            flush=True,
        )
        stop = StopRequest(paths.stop)
        if plan.todo:
            with stop.listening(how.time_limit):
                _execute(plan, paths, options, how, stop)
        after = plan_sweep(trials, paths, files)
    failed = {name: result.error or "" for name, result in after.results.items() if result.status == "failed"}
    return Outcome(paths.folder, len(after.results) - len(failed), len(failed), len(after.todo), stop.reason, failed)


def _execute(plan: Plan, paths: SweepPaths, options: RunOptions, how: ExecutorOptions, stop: StopRequest) -> None:
    has_gpu = resolve_device(options.device).type == "cuda"
    cores = len(os.sched_getaffinity(0))
    cpus = how.cpus_per_trial or (1 if has_gpu else cores)
    slots = int(how.gpus / how.gpu_share) if has_gpu else max(1, cores // cpus)
    side_by_side = slots if how.executor == "ray" else 1
    seconds = {config.trial_id(): rough_seconds(config, options.files) for config in plan.todo}
    options = options.model_copy(update={"threads": options.threads or cpus})
    with make_display(plan.todo, seconds, done=len(plan.results), side_by_side=side_by_side) as display:
        if how.executor == "local":
            run_locally(plan.todo, paths, options, retries=how.retries, listener=display, stop=stop)
            return
        from raypatch.sweep.ray_executor import Resources, local_ray, run_on_ray

        with local_ray(cpus=max(cores, cpus), gpus=how.gpus if has_gpu else 0):
            run_on_ray(
                plan.todo,
                paths,
                options,
                resources=Resources(cpus, how.gpu_share if has_gpu else 0.0),
                retries=how.retries,
                reuse_actors=how.reuse_actors,
                listener=display,
                stop=stop,
            )
