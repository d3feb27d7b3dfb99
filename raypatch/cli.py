"""The command line: parse, call one function, print where the result is. Heavy imports wait until they are needed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raypatch import cli_options
from raypatch.cli_options import metric_of, micro_batch_of, narrow, seconds_of

if TYPE_CHECKING:
    from raypatch.sweep.run import Outcome

DONE, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which patch size should my Vision Transformer use, what does it cost, and is the difference real?",
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, fetch and verify datasets.")
app.add_typer(data_app, name="data")


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
    from raypatch.selection import apply_recipes
    from raypatch.space import check_name, load_space
    from raypatch.sweep.run import ExecutorOptions, run_sweep

    chosen = narrow(load_space(space), dataset, patch_size, seed, model, weights, set_ or [])
    if recipes is not None:
        chosen = apply_recipes(chosen, recipes)
    options = RunOptions(device=device, data_dir=data_dir, micro_batch=micro_batch_of(micro_batch))
    how = ExecutorOptions(
        executor=executor,
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
    json_: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Say what a sweep would cost on this device: tokens, GFLOPs, memory, hours. Times a few steps, trains nothing."""
    from raypatch.config import RunOptions
    from raypatch.space import load_space, resolve_trials
    from raypatch.sweep.cost import as_json, as_table, plan_cost

    trials, files = resolve_trials(narrow(load_space(space), dataset, patch_size, seed, model, weights, set_ or []))
    options = RunOptions(device=device, data_dir=data_dir, micro_batch=micro_batch_of(micro_batch), files=files)
    rows = plan_cost(trials, options, say=lambda text: print(text, file=sys.stderr, flush=True))
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
    from raypatch.space import check_name, default_run_name, load_space
    from raypatch.sweep.run import ExecutorOptions, run_sweep

    settings = [*(set_ or []), *([f"epochs={max_epochs}"] if max_epochs else [])]
    settings += [f"selection={metric_of(metric)}"] if metric else []
    changes = {"samples": samples, "grace_epochs": grace_epochs}
    asked = load_space(space).override_search(**{key: value for key, value in changes.items() if value is not None})
    chosen = narrow(asked, dataset, patch_size, str(seed), model, weights, settings)
    if together:
        chosen = chosen.search_patch_sizes()
    options = RunOptions(device=device, data_dir=data_dir, micro_batch=micro_batch_of(micro_batch))
    how = ExecutorOptions(
        executor=executor,
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
        print(f"stopped ({outcome.stopped}); to continue: raypatch resume {outcome.folder}", file=sys.stderr)
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
    changes |= {"dashboard": dashboard, "track": track}
    finish(resume_sweep(folder, changes, time_limit=seconds_of(time_limit), retry_failed=retry_failed))


@app.command()
def status(
    folder: cli_options.RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 seconds until the sweep ends.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Say how a sweep stands, from its files alone: works from anywhere, while it runs."""
    from raypatch.results import SweepPaths
    from raypatch.sweep.status import read_status, show_status, watch_status

    paths = SweepPaths(folder)
    if json_:
        print(read_status(paths).as_json())
    elif watch:
        watch_status(paths)
    else:
        show_status(read_status(paths))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run folder or several.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default report/ in the run folder.")] = None,
    formats: Annotated[str, typer.Option("--format", help="Some of html, md, latex, by commas.")] = "html,md,latex",
) -> None:
    """Print the main table and write tables, ensembles, statistics, plots and a page; also while it runs."""
    from raypatch.analysis.report import write_report

    written = write_report(runs, out, [part.strip() for part in formats.split(",") if part.strip()])
    print(written.text)
    print(f"written to {written.folder}: {', '.join(path.name for path in written.files[:6])} ...")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run folder.")],
    second: Annotated[Path, typer.Argument(help="Another; differences are second minus first.")],
    metric: Annotated[str, typer.Option(help="accuracy, balanced_accuracy or auc.")] = "balanced_accuracy",
    out: Annotated[Path | None, typer.Option(help="Where to write; default in the first run's report.")] = None,
) -> None:
    """Put two runs side by side: the same datasets and patch sizes, with intervals of their difference."""
    from raypatch.analysis.compare import compare_runs

    written = compare_runs(first, second, out, metric=metric)
    print(written.text)
    print(f"written to {written.folder}")


@app.command()
def predict(
    folder: cli_options.RunFolder,
    input_: Annotated[Path, typer.Option("--input", help="An .npz, a folder of pictures or .nii.gz volumes, or one.")],
    dataset: Annotated[str | None, typer.Option(help="Trained on this dataset, where the run has several.")] = None,
    patch_size: Annotated[str | None, typer.Option(help="Ensemble of these; default the best single model.")] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which split of an .npz.")] = "test",
    out: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("predictions.csv"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Predict new images with a run's best model, or the ensemble of patch sizes; best by validation."""
    from raypatch.files import write_atomically
    from raypatch.predict import predict as predict_images

    sizes = [int(part) for part in patch_size.split(",")] if patch_size else None
    table, members = predict_images(folder, input_, dataset=dataset, patch_sizes=sizes, split=split, device=device)
    write_atomically(out, table.encode())
    print(f"{table.count(chr(10)) - 1} images predicted by {', '.join(members)}, in {out}")


@app.command()
def export(
    folder: cli_options.RunFolder,
    trial: Annotated[str, typer.Option(help="The trial's id, as in `raypatch status` and the report.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("exported"),
) -> None:
    """Write a trial's model as safetensors and JSON that timm loads (2D) or raypatch.predict.load_exported (3D)."""
    from raypatch.predict import export_trial

    written = export_trial(folder, trial, out)
    print(f'{written}: timm.create_model("local-dir:{written}", pretrained=True), or raypatch.predict.load_exported')


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="timm name of a Vision Transformer.")],
    patch_size: Annotated[str, typer.Option(help="Patch sizes in pixels, separated by commas.")] = "28,14,7,4,2,1",
    image_size: Annotated[int, typer.Option(help="Edge of the image or volume, pixels.")] = 28,
    volumes: Annotated[bool, typer.Option("--volumes", help="For 3D volumes instead of 2D images.")] = False,
    classes: Annotated[int, typer.Option(min=1, help="Outputs of the head.")] = 2,
    count: Annotated[bool, typer.Option("--count", help="Also count with fvcore, up to 4096 tokens.")] = False,
) -> None:
    """Show what a model costs at each patch size: tokens, parameters, GFLOPs per image."""
    from raypatch.config import make_config
    from raypatch.models.build import build_model
    from raypatch.models.flops import count_with_fvcore, model_facts

    dimensions, dataset = (3, "phantom3d") if volumes else (2, "phantom2d")
    print(f"{'patch':>5} {'tokens':>7} {'parameters':>12} {'GFLOPs':>10} {'without attention':>18}", end="")
    print(f" {'by fvcore':>10}" if count else "")
    for patch in patch_size.split(","):
        fields = {"patch_size": patch, "model": name, "image_size": image_size, "dataset": dataset, "weights": "random"}
        config = make_config(fields)
        facts = model_facts(config, dimensions=dimensions, outputs=classes)
        line = f"{patch:>5} {facts.tokens:7,} {facts.parameters:12,} {facts.gflops:10.4g}"
        line += f" {facts.gflops_without_attention:18.4g}"
        if count and facts.tokens <= 4096:
            built = build_model(config, dimensions=dimensions, outputs=classes, files={})
            line += f" {count_with_fvcore(built.model, (3, *(image_size,) * dimensions)):10.4g}"
        print(line)


@app.command()
def spaces(name: Annotated[str | None, typer.Argument(help="Show this one whole.")] = None) -> None:
    """List the search spaces that come with raypatch."""
    from raypatch.space import load_space, shipped_spaces

    if name is not None:
        load_space(name)
        print(shipped_spaces()[name].read_text("utf-8"), end="")
        return
    for stem in shipped_spaces():
        print(f"{stem:16} {load_space(stem).description}")


@data_app.command("list")
def data_list(data_dir: cli_options.DataDir = None) -> None:
    """List all datasets known by name, with task, size and whether the file is there."""
    from raypatch.data.catalog import catalog
    from raypatch.data.source import data_folder

    folder = data_folder(data_dir)
    print(f"{'name':22}{'task':12}{'image':>16}{'classes':>9}{'train/val/test':>22}  in {folder}")
    for info in catalog().values():
        shape = "x".join(map(str, info.shape)) + (" RGB" if info.channels == 3 else "")
        counts = "/".join(map(str, info.counts))
        state = "made up" if info.made_up else "yes" if (folder / f"{info.name}.npz").exists() else "-"
        print(f"{info.name:22}{info.task:12}{shape:>16}{len(info.classes):>9}{counts:>22}  {state}")


@data_app.command("fetch")
def data_fetch(name: str, data_dir: cli_options.DataDir = None) -> None:
    """Download a MedMNIST file through the medmnist package's addresses, check its MD5, put it in place."""
    from raypatch.data.source import fetch

    print(fetch(name, data_dir=data_dir))


@data_app.command("verify")
def data_verify(name: str, data_dir: cli_options.DataDir = None) -> None:
    """Check a MedMNIST file by its MD5, or an own .npz by its structure."""
    from raypatch.data.npz import inspect_npz
    from raypatch.data.source import verify

    if name.endswith(".npz"):
        info = inspect_npz(Path(name))
        print(f"{name}: {info.task}, {len(info.classes)} classes, {info.counts} images of {info.shape}")
    else:
        print(f"{verify(name, data_dir=data_dir)}: as published")


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
