"""The command line: parse, call one function, print where the result is. Heavy imports wait until they are needed."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raypatch.cli import data as cli_data
from raypatch.cli import options as cli_options
from raypatch.cli import results as cli_results
from raypatch.cli.options import metric_of, micro_batch_of, narrow, seconds_of

if TYPE_CHECKING:
    from raypatch.sweep.run import Outcome

DONE, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which patch size should my Vision Transformer use, what does it cost, and is the difference real?",
)


@app.command()
def run(
    space: Annotated[str, typer.Argument(help="Name of a shipped search space (`raypatch spaces`) or a .yaml file.")],
    dataset: cli_options.Datasets = None,
    patch_size: cli_options.PatchSizes = None,
    seed: Annotated[str | None, typer.Option(help="Seeds, separated by commas.")] = None,
    model: cli_options.Model = None,
    weights: cli_options.Weights = None,
    set_: cli_options.Settings = None,
    recipes: Annotated[Path | None, typer.Option(help="best.yaml of a search: use what it found.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder; default the space's name.")] = None,
    runs_dir: cli_options.RunsDir = Path("runs"),
    data_dir: cli_options.DataDir = None,
    executor: cli_options.Executor = "ray",
    address: cli_options.Address = "local",
    device: cli_options.Device = "auto",
    gpus: cli_options.Gpus = 1,
    gpu_share: cli_options.GpuShare = None,
    cpus_per_trial: cli_options.CpusPerTrial = None,
    micro_batch: cli_options.MicroBatch = "auto",
    retries: cli_options.Retries = 2,
    retry_failed: cli_options.RetryFailed = False,
    reuse_actors: cli_options.ReuseActors = True,
    dashboard: cli_options.Dashboard = False,
    track: cli_options.Track = "none",
    time_limit: cli_options.TimeLimit = None,
) -> None:
    """Run a sweep, or continue it: the same command again does what is left."""
    from raypatch.config import RunOptions
    from raypatch.study import check_name, load_study
    from raypatch.sweep.run import ExecutorOptions, run_sweep
    from raypatch.sweep.tuning.recipes import apply_recipes

    chosen = narrow(load_study(space), dataset, patch_size, seed, model, weights, set_ or [])
    if recipes is not None:
        chosen = apply_recipes(chosen, recipes)
    options = RunOptions(device=device, data_dir=data_dir, micro_batch=micro_batch_of(micro_batch))
    how = ExecutorOptions(
        executor=executor,
        address=address,
        gpus=gpus,
        gpu_share=gpu_share,
        cpus_per_trial=cpus_per_trial,
        reuse_actors=reuse_actors,
        retries=retries,
        dashboard=dashboard,
        track=track,
    )
    folder = runs_dir / check_name(name or chosen.name)
    finish(run_sweep(chosen, folder, options, how, time_limit=seconds_of(time_limit), retry_failed=retry_failed))


@app.command()
def plan(
    space: Annotated[str, typer.Argument(help="Name of a shipped search space (`raypatch spaces`) or a .yaml file.")],
    dataset: cli_options.Datasets = None,
    patch_size: cli_options.PatchSizes = None,
    seed: Annotated[str | None, typer.Option(help="Seeds, separated by commas.")] = None,
    model: cli_options.Model = None,
    weights: cli_options.Weights = None,
    set_: cli_options.Settings = None,
    data_dir: cli_options.DataDir = None,
    device: cli_options.Device = "auto",
    micro_batch: cli_options.MicroBatch = "auto",
    recalibrate: Annotated[bool, typer.Option("--recalibrate", help="Time again what an earlier plan timed.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Say what a sweep would cost on this device: tokens, GFLOPs, memory, hours. Times a few steps, trains nothing."""
    from raypatch.config import RunOptions
    from raypatch.resolve import resolve_search, resolve_trials
    from raypatch.study import load_study
    from raypatch.sweep.cost.estimate import as_json, as_table, plan_cost

    chosen = narrow(load_study(space), dataset, patch_size, seed, model, weights, set_ or [])
    resolved = resolve_trials(chosen) if chosen.search is None else resolve_search(chosen)
    options = RunOptions(device=device, data_dir=data_dir, micro_batch=micro_batch_of(micro_batch))
    say = functools.partial(print, file=sys.stderr, flush=True)
    rows = plan_cost(resolved, options, say, recalibrate=recalibrate)
    print(as_json(rows) if json_ else as_table(rows))


@app.command()
def tune(
    dataset: cli_options.Datasets = None,
    patch_size: cli_options.PatchSizes = None,
    space: Annotated[str, typer.Option(help="A search space with a `search:` section, or a .yaml file.")] = (
        "learning_rate"
    ),
    samples: Annotated[int | None, typer.Option(min=1, help="Trials per dataset and patch size.")] = None,
    max_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a trial that is not stopped early.")] = None,
    grace_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs that every trial gets.")] = None,
    metric: Annotated[str | None, typer.Option(help="Validation figure to judge by, such as val_auc.")] = None,
    together: Annotated[bool, typer.Option("--together", help="Search the patch size too: one best trial.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws and of every trial.")] = 0,
    model: cli_options.Model = None,
    weights: cli_options.Weights = None,
    set_: cli_options.Settings = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder; default space and datasets.")] = None,
    runs_dir: cli_options.RunsDir = Path("runs"),
    data_dir: cli_options.DataDir = None,
    executor: cli_options.Executor = "ray",
    address: cli_options.Address = "local",
    device: cli_options.Device = "auto",
    gpus: cli_options.Gpus = 1,
    gpu_share: cli_options.GpuShare = None,
    cpus_per_trial: cli_options.CpusPerTrial = None,
    micro_batch: cli_options.MicroBatch = "auto",
    retries: cli_options.Retries = 2,
    retry_failed: cli_options.RetryFailed = False,
    reuse_actors: cli_options.ReuseActors = True,
    dashboard: cli_options.Dashboard = False,
    track: cli_options.Track = "none",
    time_limit: cli_options.TimeLimit = None,
) -> None:
    """Search the best learning rate, or what the space says, for each dataset and patch size; bad trials stop early."""
    from raypatch.config import RunOptions
    from raypatch.study import check_name, default_run_name, load_study
    from raypatch.sweep.run import ExecutorOptions, run_sweep

    settings = [*(set_ or []), *([f"epochs={max_epochs}"] if max_epochs else [])]
    settings += [f"selection={metric_of(metric)}"] if metric else []
    changes = {"samples": samples, "grace_epochs": grace_epochs}
    asked = load_study(space).override_search(**{key: value for key, value in changes.items() if value is not None})
    chosen = narrow(asked, dataset, patch_size, str(seed), model, weights, settings)
    if together:
        chosen = chosen.search_together()
    options = RunOptions(device=device, data_dir=data_dir, micro_batch=micro_batch_of(micro_batch))
    how = ExecutorOptions(
        executor=executor,
        address=address,
        gpus=gpus,
        gpu_share=gpu_share,
        cpus_per_trial=cpus_per_trial,
        reuse_actors=reuse_actors,
        retries=retries,
        dashboard=dashboard,
        track=track,
    )
    folder = runs_dir / check_name(name or default_run_name(chosen))
    finish(run_sweep(chosen, folder, options, how, time_limit=seconds_of(time_limit), retry_failed=retry_failed))


def finish(outcome: "Outcome") -> None:
    """Say how a sweep ended and exit with its code."""
    for trial_id, error in list(outcome.errors.items())[:10]:
        print(f"failed: {trial_id}: {error.strip().splitlines()[-1] if error.strip() else 'unknown'}", file=sys.stderr)
    print(f"{outcome.ok} trials done, {len(outcome.errors)} failed, {outcome.left} left in {outcome.folder}")
    if outcome.table:
        print(outcome.table)
    if outcome.stopped:
        print(f"stopped ({outcome.stopped}); to continue: {outcome.resume_command}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    print(f"{'the plots' if outcome.table else 'the table'}: raypatch report {outcome.folder}")
    if outcome.table and not outcome.left:
        print(f"to use what was found: raypatch run grid --recipes {outcome.folder / 'best.yaml'}")
    if outcome.errors or outcome.left:
        print("failed trials run again with --retry-failed", file=sys.stderr)
        raise typer.Exit(SOME_FAILED)


@app.command()
def resume(
    folder: cli_options.RunFolder,
    data_dir: cli_options.DataDir = None,
    executor: Annotated[Literal["ray", "local"] | None, typer.Option(help="Other than last time.")] = None,
    address: Annotated[str | None, typer.Option(help="Other than last time.")] = None,
    device: Annotated[str | None, typer.Option(help="Other than last time.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Other than last time.")] = None,
    gpu_share: Annotated[float | None, typer.Option(min=0.01, max=1, help="Other than last time.")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="Other than last time.")] = None,
    dashboard: Annotated[bool | None, typer.Option(help="Other than last time.")] = None,
    track: Annotated[cli_options.Tracker | None, typer.Option(help="Other than last time.")] = None,
    retry_failed: cli_options.RetryFailed = False,
    time_limit: cli_options.TimeLimit = None,
) -> None:
    """Continue the last command of a run folder, as if it were typed again."""
    from raypatch.sweep.run import resume_sweep

    changes: dict[str, object] = {"data_dir": data_dir, "executor": executor, "device": device, "gpus": gpus}
    changes |= {"gpu_share": gpu_share, "cpus_per_trial": cpus_per_trial}
    changes |= {"dashboard": dashboard, "track": track, "address": address}
    finish(resume_sweep(folder, changes, time_limit=seconds_of(time_limit), retry_failed=retry_failed))


@app.command()
def status(
    folder: cli_options.RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 seconds until the sweep ends.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
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


app.add_typer(cli_results.app)
app.add_typer(cli_data.app)


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, never a traceback."""
    try:
        app()
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        if isinstance(error, _user_errors()):
            print(f"raypatch: {error}", file=sys.stderr)
            sys.exit(WRONG_INPUT)
        raise


def _user_errors() -> tuple[type[Exception], ...]:
    from raypatch.files import LockedError

    return (ValueError, LockedError)
