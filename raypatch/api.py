"""raypatch in Python: what the command line calls, for scripts and notebooks.

    outcome = raypatch.run("demo", dataset="phantom2d", seed=0)
    trials = raypatch.load(outcome.folder)
    print(raypatch.report(outcome.folder).text)

This module imports neither torch, ray nor pandas before a function is called.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from raypatch.config import RunOptions, TrialConfig, did_you_mean, explain_validation
from raypatch.study import Study, as_list, check_name, default_run_name, load_study
from raypatch.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from raypatch.analysis.written import Written
    from raypatch.sweep.run import Outcome

Runs = str | Path | Sequence[str | Path]
Options = TypeVar("Options", bound=BaseModel)


def run(
    study: str | Path | Mapping[str, Any] | Study,
    *,
    folder: str | Path | None = None,
    recipes: str | Path | None = None,
    time_limit: float | None = None,
    retry_failed: bool = False,
    **settings: Any,
) -> "Outcome":
    """Run a study, or continue it: the same call again does what is left.

    Says how it goes and how it ended.

    study: the name of a shipped study, the path of a .yaml file, or its content. folder: the run
    folder; default runs/ and the study's name, with datasets and recipe where these were changed.
    recipes: best.yaml of a search.
    time_limit: seconds. retry_failed: run failed trials again.

    settings: a field of a trial or an axis of the study, with one value or
    several, in place of what the study says (`patch_size=[14, 7]`, `epochs=5`);
    `compare`, one factor or several; or how to run: `executor="local"`,
    `device="cpu"` and the other fields of RunOptions and ExecutorOptions.

    An interrupt (Ctrl-C, or the square button of a notebook) stops after the running step: all
    files are whole, and `Outcome.stopped` and `Outcome.resume_command` say why and how to continue.

    Raises ValueError for wrong input and LockedError for a folder in use, before anything starts.
    """
    from raypatch.sweep.run import ExecutorOptions, run_sweep

    original = load_study(study)
    # What is left of the settings after the options is a change of the study.
    executor = _take_options(ExecutorOptions, settings)
    options = _take_options(RunOptions, settings)
    chosen = change_study(original, settings)
    if recipes is not None:
        from raypatch.sweep.tuning.recipes import apply_recipes

        chosen = apply_recipes(chosen, Path(recipes))
    if folder is None:
        folder = Path("runs") / check_name(default_run_name(chosen, original))
    outcome = run_sweep(
        chosen,
        Path(folder),
        options,
        executor,
        time_limit=time_limit,
        retry_failed=retry_failed,
    )
    tell(outcome)
    return outcome


def resume(
    folder: str | Path,
    *,
    moved: Sequence[str | Path] = (),
    time_limit: float | None = None,
    retry_failed: bool = False,
    **changes: Any,
) -> "Outcome":
    """Continue the last run of a folder.

    changes: options to have otherwise than last time, such as device="cpu".
    moved: new paths of own data or weights that lie elsewhere now;
    their content says which they are. Raises ValueError for wrong
    input and LockedError for a folder in use, before anything starts.
    """
    from raypatch.sweep.run import ExecutorOptions, resume_sweep

    known = [*RunOptions.model_fields, *ExecutorOptions.model_fields]
    for name in changes:
        if name not in known:
            raise ValueError(f"unknown option {name!r}; {did_you_mean(name, known)}")
    outcome = resume_sweep(
        Path(folder),
        changes,
        moved=_as_paths(moved),
        time_limit=time_limit,
        retry_failed=retry_failed,
    )
    tell(outcome)
    return outcome


def load(runs: Runs) -> "pd.DataFrame":
    """Return one row per trial that is over: its fields, level, scores (0 to 1), cost and time;
    unfinished runs too.

    runs: one run folder or several. Columns: `raypatch.analysis.frames.columns.describe_columns`. Raises
    ValueError for a folder that is no run folder.
    """
    from raypatch.analysis.frames.load import load_trials

    return load_trials(*_as_paths(runs))


def report(
    runs: Runs,
    *,
    out: str | Path | None = None,
    formats: Sequence[str] = ("html", "md", "latex"),
    compare: Sequence[str] | str | None = None,
    without_twins: bool = False,
    sensitivity: float | None = None,
    checklist: bool = False,
) -> "Written":
    """Write the page, tables, statistics and plots of one run or several;
    return what was written and its text.

    out: a folder; default report/ in the first run. formats: some of html, md, latex. compare: the
    factors, instead of those that the study named. without_twins: leave out test images that repeat
    one of train or val. sensitivity: what decisions have to reach on validation, such as 0.95; None
    for Youden's threshold. checklist: add what the run can say to TRIPOD+AI and CLAIM. Raises
    ValueError for a folder that is no run folder and for runs without any finished trial.
    """
    from raypatch.analysis.report import write_report

    factors = None if compare is None else as_list(compare)
    folder = None if out is None else Path(out)
    return write_report(
        _as_paths(runs),
        folder,
        formats,
        compare=factors,
        without_twins=without_twins,
        sensitivity=sensitivity,
        checklist=checklist,
    )


def tell(outcome: "Outcome") -> None:
    """Print how a sweep ended and what to do next;
    failures and the command that continues go to stderr.
    """
    for trial_id, error in list(outcome.errors.items())[:10]:
        # The last line of a traceback is the error itself; train.log has the rest.
        lines = error.strip().splitlines() or ["unknown"]
        print(f"failed: {trial_id}: {lines[-1]}", file=sys.stderr)
    print(f"{counted(outcome.ok, 'trial')} done, {len(outcome.errors)} failed, {outcome.left} left in {outcome.folder}")
    if outcome.table:
        print(outcome.table)
    if outcome.stopped:
        how = "halted" if outcome.halted else "stopped"
        print(f"{how} ({outcome.stopped}); to continue: {outcome.resume_command}", file=sys.stderr)
        return
    shown_by_report = "the plots" if outcome.table else "the table"
    print(f"{shown_by_report}: raypatch report {outcome.folder}")
    if outcome.recipes is not None:
        print(f"to use what was found: raypatch run grid --recipes {outcome.recipes}")
    elif outcome.table and not outcome.left:
        print("nothing was found: no trial that ran through has a score to be chosen by", file=sys.stderr)
    if outcome.errors or outcome.left:
        print("failed trials run again with --retry-failed", file=sys.stderr)


def change_study(study: Study, settings: Mapping[str, Any]) -> Study:
    """Return the study with other values of fields or axes,
    and other factors if `compare` is among the settings.

    Raises ValueError for a name that is neither, with the near ones.
    """
    known = [*TrialConfig.model_fields, *study.grid]
    values = {}
    for name, value in settings.items():
        if name == "compare":
            continue
        if name not in known:
            raise ValueError(f"unknown setting {name!r}; {did_you_mean(name, known)}")
        values[name] = as_list(value)
    changed = study.override(values)
    # After the fields: a factor needs its levels before it can be compared.
    if settings.get("compare"):
        changed = changed.override_compare(as_list(settings["compare"]))
    return changed


def _as_paths(runs: Runs) -> list[Path]:
    given = [runs] if isinstance(runs, (str, Path)) else list(runs)
    return [Path(run) for run in given]


def _take_options(kind: type[Options], settings: dict[str, Any]) -> Options:
    """Make options of those settings that are theirs, and take these out. Raises ValueError."""
    values = {}
    for name in kind.model_fields:
        if name in settings:
            values[name] = settings.pop(name)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain_validation(error, kind)) from error
