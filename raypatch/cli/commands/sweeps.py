"""Commands that run trainings, plan them or say how they stand: run, plan, tune, resume, status."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raypatch.cli import options as cli_options
from raypatch.cli.options.commands import StudyCommand, with_groups
from raypatch.cli.options.groups import Changes, Detect, Execution, Narrowing, Place, Session
from raypatch.cli.pipes import outlive_readers

if TYPE_CHECKING:
    from raypatch.config import RunOptions
    from raypatch.study.resolve import StudySearch, StudyTrials
    from raypatch.sweep.cost.estimate import PlanRow
    from raypatch.sweep.run import Outcome

# 130 is what a shell gives for a program that Ctrl+C ended.
SOME_FAILED, HALTED, INTERRUPTED = 1, 3, 130

app = typer.Typer()


@app.command(cls=StudyCommand)
@with_groups
def run(
    space: cli_options.Space,
    narrowing: Narrowing,
    session: Session,
    place: Place,
    execution: Execution,
    recipes: Annotated[Path | None, typer.Option(help="best.yaml of a search: use what it found.")] = None,
) -> None:
    """Run a study, or continue it: the same command again does what is left."""
    from raypatch.api import run as run_study
    from raypatch.study import load_study

    original = load_study(space)
    chosen = narrowing.apply(original)
    folder = session.folder(chosen, original)
    settings = {**session.settings(), **place.settings(), **execution.settings()}
    with outlive_readers():
        outcome = run_study(chosen, folder=folder, recipes=recipes, **settings)
    finish(outcome)


@app.command(cls=StudyCommand)
@with_groups
def plan(
    space: cli_options.Space,
    narrowing: Narrowing,
    place: Place,
    detect: Detect,
    recalibrate: Annotated[
        bool,
        typer.Option("--recalibrate", help="Time again what an earlier plan timed."),
    ] = False,
    json_: cli_options.Json = False,
) -> None:
    """Say what a sweep would cost on this device: tokens, GFLOPs, memory, hours.

    Times a few steps, trains nothing.
    """
    from raypatch.config import RunOptions
    from raypatch.results import SweepPaths
    from raypatch.study import default_run_name, load_study
    from raypatch.study.budget import describe_budget
    from raypatch.study.resolve import StudySearch, resolve_search, resolve_trials
    from raypatch.sweep.cost.estimate import plan_cost

    original = load_study(space)
    chosen = narrowing.apply(original)
    resolved = resolve_trials(chosen) if chosen.search is None else resolve_search(chosen)
    options = RunOptions(files=resolved.files, **place.settings())
    # stdout holds the table or the JSON alone, so that a script can read it.
    say = functools.partial(print, file=sys.stderr, flush=True)
    if isinstance(resolved, StudySearch):
        say(describe_budget(resolved.search))
    # Where `raypatch run` would go on: features that lie there cost nothing.
    store = SweepPaths(Path("runs") / default_run_name(chosen, original)).features
    rows = plan_cost(resolved, options, say, recalibrate=recalibrate, store=store)
    _print_plan(rows, resolved, options, detect, json_=json_)


def _print_plan(
    rows: "Sequence[PlanRow]",
    study: "StudyTrials | StudySearch",
    options: "RunOptions",
    detect: Detect,
    *,
    json_: bool,
) -> None:
    """Print what a study costs and, where it is asked for, how many seeds a difference takes."""
    from raypatch.study.resolve import StudyTrials
    from raypatch.sweep.cost.plan_table import as_json, as_table

    if detect.detect is None:
        print(as_json(rows) if json_ else as_table(rows))
        return
    # Only where it is asked for, since it brings the statistics along.
    from raypatch.cli import detect as power

    trials = study.trials if isinstance(study, StudyTrials) else study.search.groups
    assumed = detect.detect, detect.score, detect.seed_spread
    found = power.plan_detection(trials, options, *assumed)
    if json_:
        print(as_json(rows, detect=power.as_data(found)))
    else:
        lines = power.as_lines(found, *assumed)
        print(f"{as_table(rows)}\n\n{lines}")


@app.command(cls=StudyCommand)
@with_groups
def tune(
    narrowing: Narrowing,
    session: Session,
    place: Place,
    execution: Execution,
    space: Annotated[
        str,
        typer.Option(
            help="A study with a `search:` section, or a .yaml file.",
            autocompletion=cli_options.complete_studies,
        ),
    ] = "learning_rate",
    samples: Annotated[int | None, typer.Option(min=1, help="Trials per dataset and level.")] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of a trial that is not stopped early."),
    ] = None,
    grace_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs that every trial gets."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Validation score to judge by, such as val_auc."),
    ] = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Search the factors too, such as the patch size: one best trial."),
    ] = False,
) -> None:
    """Search the best learning rate, or what the study says, for each dataset and level.

    Bad trials stop early.
    """
    from raypatch.api import change_study
    from raypatch.api import run as run_study
    from raypatch.study import load_study

    original = load_study(space)
    changes = _given(samples=samples, grace_epochs=grace_epochs)
    chosen = narrowing.apply(original.override_search(**changes))
    selection = cli_options.metric_of(metric) if metric else None
    chosen = change_study(chosen, _given(epochs=max_epochs, selection=selection))
    # Last, because the factors may have come by --compare.
    if together:
        chosen = chosen.search_together()
    folder = session.folder(chosen, original)
    settings = {**session.settings(), **place.settings(), **execution.settings()}
    with outlive_readers():
        outcome = run_study(chosen, folder=folder, **settings)
    finish(outcome)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given: the others are None."""
    return {name: value for name, value in options.items() if value is not None}


def finish(outcome: "Outcome") -> None:
    """Exit with the code that says how a sweep ended."""
    # A stopped sweep has trials left, too: that it was asked to stop says more.
    if outcome.stopped:
        raise typer.Exit(HALTED if outcome.halted else INTERRUPTED)
    nothing_found = outcome.table is not None and outcome.recipes is None
    if outcome.errors or outcome.left or nothing_found:
        raise typer.Exit(SOME_FAILED)


@app.command()
@with_groups
def resume(
    folder: cli_options.RunFolder,
    changes: Changes,
    dataset: Annotated[
        str | None,
        typer.Option(help="New paths of own .npz files that were moved, by commas."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="New paths of own weights that were moved, by commas."),
    ] = None,
    retry_failed: cli_options.RetryFailed = False,
    time_limit: cli_options.TimeLimit = None,
) -> None:
    """Continue the last command of a run folder, as if it were typed again."""
    from raypatch.api import resume as resume_study

    # Which is which, the identity of each file says.
    moved = cli_options.split_commas(f"{dataset or ''},{weights or ''}")
    seconds = cli_options.seconds_of(time_limit)
    settings = changes.settings()
    with outlive_readers():
        outcome = resume_study(
            folder,
            moved=moved,
            time_limit=seconds,
            retry_failed=retry_failed,
            **settings,
        )
    finish(outcome)


@app.command()
def status(
    folder: cli_options.RunFolder,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show it again every 2 seconds until the sweep ends."),
    ] = False,
    json_: cli_options.Json = False,
) -> None:
    """Say how a sweep stands, from its files alone: works from anywhere, while it runs."""
    from raypatch.results import SweepPaths
    from raypatch.sweep.watch.status import read_status, show_status, watch_status

    paths = SweepPaths(folder)
    if json_:
        print(read_status(paths).as_json())
    elif watch:
        watch_status(paths)
    else:
        show_status(read_status(paths))
