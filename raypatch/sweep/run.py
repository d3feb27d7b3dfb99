"""A sweep from its study to its finished trials: resolve, check, plan, execute, count."""

import contextlib
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raypatch.config import RunOptions
from raypatch.results import SweepPaths, SweepRecord, read_sweep, write_json
from raypatch.storage.files import hold_lock, write_atomically
from raypatch.study import Study
from raypatch.sweep.executors.executor import Executor, open_executor
from raypatch.sweep.executors.preflight import check_address, check_monitoring, check_space
from raypatch.sweep.plan import plan_sweep, rough_seconds
from raypatch.sweep.record import complete_record, make_record
from raypatch.sweep.session import ExecutorOptions, Session
from raypatch.sweep.source import TrialSource, open_source
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.tuning.recipes import describe_search, summarize_search, write_recipes
from raypatch.sweep.watch.choose import make_display

__all__ = ["ExecutorOptions", "Outcome", "resume_sweep", "run_sweep"]


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended, recounted from the files.

    ok: trials that are over and did not fail. left: trials to run. errors: of the failed trials,
    by trial id. stopped: why it ended early, None when it ran through. resume_command: continues
    it. table: of a search, what it found.
    """

    folder: Path
    ok: int
    left: int
    errors: Mapping[str, str]
    stopped: str | None
    resume_command: str
    table: str | None = None


def run_sweep(
    study: Study,
    folder: Path,
    options: RunOptions,
    execution: ExecutorOptions,
    *,
    time_limit: float | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Run, or continue, the sweep of `study` in `folder`. time_limit: seconds.

    Raises ValueError for wrong input and LockedError for a folder in use, before anything starts.
    """
    record = make_record(study, folder.name, options, execution)
    session = _start_session(record, folder, time_limit=time_limit, retry_failed=retry_failed)
    return _run(record, session, study)


def resume_sweep(
    folder: Path,
    changes: Mapping[str, Any],
    *,
    time_limit: float | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Continue the last command of a run folder, wherever the folder now lies.

    changes: fields of RunOptions and ExecutorOptions that are to be different from last time;
    None leaves a field as it was. Raises as run_sweep.
    """
    record = complete_record(read_sweep(SweepPaths(folder).record))
    options, execution = dict(record.options), dict(record.executor)
    for name, value in changes.items():
        if value is not None:
            (options if name in RunOptions.model_fields else execution)[name] = value
    options = RunOptions.model_validate(options).model_dump(mode="json")
    record = record.model_copy(update={"options": options, "executor": execution})
    session = _start_session(record, folder, time_limit=time_limit, retry_failed=retry_failed)
    return _run(record, session, study=None)


def _start_session(record: SweepRecord, folder: Path, *, time_limit: float | None, retry_failed: bool) -> Session:
    paths = SweepPaths(folder.absolute())
    return Session(
        paths,
        options=RunOptions.model_validate(record.options),
        execution=ExecutorOptions.model_validate(record.executor),
        stop=StopRequest(paths.stop),
        time_limit=time_limit,
        retry_failed=retry_failed,
    )


def _run(record: SweepRecord, session: Session, study: Study | None) -> Outcome:
    """Check, plan, execute, count. study: written to the run folder beside the record; None where it stands there."""
    execution = session.execution
    check_monitoring(execution.executor, dashboard=execution.dashboard, track=execution.track)
    check_address(execution.address, execution.executor, dashboard=execution.dashboard)
    with open_executor(session) as executor:
        executor.check(record.search.extremes if record.search else record.trials)
        with hold_lock(session.paths.lock):
            shutil.rmtree(session.paths.bookkeeping, ignore_errors=True)  # what a killed session left
            source = open_source(record, session)
            _execute(source, executor, session, study)
            return _count(source, session)


def _execute(source: TrialSource, executor: Executor, session: Session, study: Study | None) -> None:
    """Place what is left to run, say what comes, and run it."""
    plan = source.plan
    upcoming = [*plan.todo, *source.undrawn]
    with session.stop.listening(session.time_limit) if upcoming else contextlib.nullcontext():
        placement = executor.place(upcoming) if upcoming else None
        if placement is not None:
            check_space(upcoming, session.paths, session.planning_options, side_by_side=placement.slots)
        _write_record(source.record, session.paths, study)
        total = len(plan.results) + len(upcoming)
        over = f"{len(plan.results)} of {total} trials are over"
        session.say(f"{over}, {len(upcoming)} to run, in {session.paths.folder}")
        if placement is None:
            return
        seconds = {config.trial_id(): rough_seconds(config, session.planning_options) for config in plan.todo}
        with make_display(plan.todo, seconds, done=len(plan.results), side_by_side=placement.slots) as display:
            executor.run(source.make_work(placement, display))


def _write_record(record: SweepRecord, paths: SweepPaths, study: Study | None) -> None:
    write_json(paths.record, record)
    if study is not None:
        content = study.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        write_atomically(paths.space, yaml.safe_dump(content, sort_keys=False).encode())


def _count(source: TrialSource, session: Session) -> Outcome:
    """Recount the trials from their folders; of a search, also say and write down what it found."""
    paths, record = session.paths, source.record
    after = plan_sweep(record.trials, paths, session.planning_options)
    left = len(after.todo) + len(source.undrawn)
    table = None
    if record.search is not None:
        groups = summarize_search(record, paths)
        table = describe_search(record, groups)
        if not left:
            write_recipes(paths.recipes, record, groups)
    errors = {}
    for trial_id, result in after.results.items():
        if result.status == "failed":
            errors[trial_id] = result.error or ""
    return Outcome(
        folder=paths.folder,
        ok=len(after.results) - len(errors),
        left=left,
        errors=errors,
        stopped=session.stop.reason,
        resume_command=f"raypatch resume {shlex.quote(str(paths.folder))}"
        + (" --retry-failed" if session.retry_failed else ""),
        table=table,
    )
