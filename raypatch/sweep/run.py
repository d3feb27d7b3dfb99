"""A sweep from its study to its finished trials: resolve, check, plan, execute, count."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raypatch.config import RunOptions
from raypatch.results import SweepPaths, SweepRecord, read_sweep, write_json
from raypatch.storage.files import hold_lock, write_atomically
from raypatch.storage.own_files import move_own_files
from raypatch.study import Study
from raypatch.study.files import study_content
from raypatch.sweep.executors.executor import Executor, open_executor
from raypatch.sweep.executors.preflight import check_address, check_monitoring, check_space
from raypatch.sweep.guard import SweepHaltedError, halting_on_full_disk
from raypatch.sweep.plan import finished_results
from raypatch.sweep.record import complete_record, make_record
from raypatch.sweep.session import ExecutorOptions, Session
from raypatch.sweep.source import TrialSource, open_source
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.tuning.recipes import describe_search, summarize_search, write_recipes
from raypatch.sweep.twins import note_twins
from raypatch.sweep.watch.choose import make_display
from raypatch.sweep.watch.names import what_varies

__all__ = ["ExecutorOptions", "Outcome", "resume_sweep", "run_sweep"]


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended, recounted from the files.

    ok: trials that are over and did not fail. left: trials to run. errors: of the failed trials,
    by trial id. stopped: why it ended early, None when it ran through. halted: whether it ended so
    because no trial can go on until the user acts, as on a full disk. resume_command: continues it.
    table: of a search, what it found. recipes: of a search, its best.yaml; None where no trial has a
    score or some are left.
    """

    folder: Path
    ok: int
    left: int
    errors: Mapping[str, str]
    stopped: str | None
    resume_command: str
    halted: bool = False
    table: str | None = None
    recipes: Path | None = None


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
    moved: Sequence[Path] = (),
    time_limit: float | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Continue the last command of a run folder, wherever the folder now lies.

    changes: fields of RunOptions and ExecutorOptions that are to be different from last time;
    None leaves a field as it was. moved: new paths of own data and weights; those that are missing
    are also looked for, by their content, in a new data_dir and where they lay as seen from the run
    folder. Raises as run_sweep.
    """
    record = complete_record(read_sweep(SweepPaths(folder).record))
    options, execution = dict(record.options), dict(record.executor)
    for name, value in changes.items():
        if value is None:
            continue
        changed = options if name in RunOptions.model_fields else execution
        changed[name] = value
    where = RunOptions.model_validate(options)
    folders = [Path(changes["data_dir"])] if changes.get("data_dir") else []
    beside = list(folder.absolute().parents)[:3]
    files = move_own_files(where.files, moved, folders, beside)
    # Changes may come as paths, and JSON as text: both are brought to one form.
    options = where.model_copy(update={"files": files}).model_dump(mode="json")
    record = record.model_copy(update={"options": options, "executor": execution})
    session = _start_session(record, folder, time_limit=time_limit, retry_failed=retry_failed)
    return _run(record, session, study=None)


def _start_session(record: SweepRecord, folder: Path, *, time_limit: float | None, retry_failed: bool) -> Session:
    # Absolute, because workers have a current folder of their own.
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
    """Check, plan, execute, count.

    study: is written to the run folder beside the record; None where it stands there.
    """
    execution = session.execution
    check_monitoring(execution.executor, dashboard=execution.dashboard, track=execution.track)
    check_address(execution.address, execution.executor, dashboard=execution.dashboard)
    with open_executor(session) as executor:
        # A search has no trials yet: those at the ends of what is searched stand for them.
        executor.check(record.search.extremes if record.search else record.trials)
        with hold_lock(session.paths.lock):
            # A killed session may have left these.
            shutil.rmtree(session.paths.bookkeeping, ignore_errors=True)
            source = open_source(record, session)
            try:
                _execute(source, executor, session, study)
            except SweepHaltedError as error:
                session.stop.halt(str(error))
            return _count(source, session)


def _execute(source: TrialSource, executor: Executor, session: Session, study: Study | None) -> None:
    """Place what is left to run, say what comes, and run it."""
    plan = source.plan
    upcoming = [*plan.todo, *source.undrawn]
    done = len(plan.results)
    counts = f"{done} of {done + len(upcoming)} trials are over, {len(upcoming)} to run"
    if not upcoming:
        _write_record(source.record, session.paths, study)
        session.say(f"{counts}, in {session.paths.folder}")
        return
    # Placing may measure for a while: it can be stopped like the trials.
    with session.stop.listening(session.time_limit):
        placement = executor.place(upcoming)
        options = session.planning_options
        check_space(upcoming, session.paths, options, side_by_side=placement.slots)
        # Only what can run is written down: until here a mistake leaves the last sweep.json.
        _write_record(source.record, session.paths, study)
        session.say(f"{counts}, in {session.paths.folder}")
        # Not for a cluster: this machine may not have the data that lie there.
        if not session.execution.on_cluster:
            note_twins((*source.record.trials, *upcoming), session.paths, options, session.say)
        varied = what_varies(source.record)
        display = make_display(plan.todo, plan.seconds, done=done, side_by_side=placement.slots, varied=varied)
        with display as listener, halting_on_full_disk(session.paths.folder):
            executor.run(source.make_work(placement, listener))


def _write_record(record: SweepRecord, paths: SweepPaths, study: Study | None) -> None:
    write_json(paths.record, record)
    if study is not None:
        content = yaml.safe_dump(study_content(study), sort_keys=False)
        write_atomically(paths.space, content.encode())


def _count(source: TrialSource, session: Session) -> Outcome:
    """Recount the trials from their folders; of a search, also say and write down what it found."""
    paths, record = session.paths, source.record
    # From the folders, not from what the executor told: a worker may have died after its last word.
    results = finished_results(record.trials, paths)
    left = len(record.trials) - len(results) + len(source.undrawn)
    table, recipes = None, None
    if record.search is not None:
        groups = summarize_search(record, paths)
        table = describe_search(record, groups)
        # Before the end the best ones may still change.
        if not left and any(group.best is not None for group in groups):
            write_recipes(paths.recipes, record, groups)
            recipes = paths.recipes
    errors = {}
    for trial_id, result in results.items():
        if result.status == "failed":
            errors[trial_id] = result.error or ""
    resume_command = f"raypatch resume {shlex.quote(str(paths.folder))}"
    if session.retry_failed:
        resume_command += " --retry-failed"
    # A request that came when all was done has stopped nothing.
    is_unfinished = left > 0 or (session.retry_failed and len(errors) > 0)
    return Outcome(
        folder=paths.folder,
        ok=len(results) - len(errors),
        left=left,
        errors=errors,
        stopped=session.stop.reason if is_unfinished else None,
        halted=session.stop.halted and is_unfinished,
        resume_command=resume_command,
        table=table,
        recipes=recipes,
    )
