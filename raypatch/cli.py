"""The command line: parse, call one function, print where the result is. Heavy imports wait until they are needed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from raypatch.space import SearchSpace
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

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the .npz files; default $MEDMNIST_ROOT or ~/.medmnist.", show_default=False),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")]
TimeLimit = Annotated[str | None, typer.Option(help="Stop after this time, such as 8h or 30m.", show_default=False)]
Tracker = Literal["none", "mlflow", "wandb"]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `raypatch run` made it.")]


@app.command()
def run(
    space: Annotated[str, typer.Argument(help="Name of a shipped search space (`raypatch spaces`) or a .yaml file.")],
    dataset: Annotated[str | None, typer.Option(help="Datasets: names or .npz paths, separated by commas.")] = None,
    patch_size: Annotated[str | None, typer.Option(help="Patch sizes in pixels, separated by commas.")] = None,
    seed: Annotated[str | None, typer.Option(help="Seeds, separated by commas.")] = None,
    model: Annotated[str | None, typer.Option(help="timm name of a Vision Transformer.")] = None,
    weights: Annotated[str | None, typer.Option(help="timm, random, or a .safetensors or .pth file.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any field: --set epochs=5 --set lr=1e-4,1e-3.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder; default the space's name.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where run folders lie.")] = Path("runs"),
    data_dir: DataDir = None,
    executor: Annotated[Literal["ray", "local"], typer.Option(help="Ray Tune, or one by one in this process.")] = "ray",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    gpus: Annotated[int, typer.Option(min=1, help="Physical GPUs the whole sweep may use.")] = 1,
    gpu_share: Annotated[float, typer.Option(min=0.01, max=1, help="Share of a GPU per trial.")] = 1.0,
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="Cores per trial.", show_default=False)] = None,
    micro_batch: Annotated[str, typer.Option(help="Images per forward pass: auto or a number.")] = "auto",
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a crashed trial.")] = 2,
    retry_failed: RetryFailed = False,
    reuse_actors: Annotated[bool, typer.Option(help="Keep worker processes between trials.")] = True,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve Ray's dashboard on 127.0.0.1.")] = False,
    track: Annotated[Tracker, typer.Option(help="Experiment tracker to tell of each epoch.")] = "none",
    time_limit: TimeLimit = None,
) -> None:
    """Run a sweep, or continue it: the same command again does what is left."""
    from raypatch.config import RunOptions
    from raypatch.space import check_name, load_space
    from raypatch.sweep.run import ExecutorOptions, run_sweep

    chosen = narrow(load_space(space), dataset, patch_size, seed, model, weights, set_ or [])
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


def narrow(
    space: "SearchSpace",
    dataset: str | None,
    patch_size: str | None,
    seed: str | None,
    model: str | None,
    weights: str | None,
    settings: Sequence[str],
) -> "SearchSpace":
    """Return the space with the options of the command line in place of what the file says."""
    from raypatch.space import parse_setting

    values: dict[str, list[Any]] = dict(parse_setting(text) for text in settings)
    named = {"dataset": dataset, "patch_size": patch_size, "seed": seed, "model": model, "weights": weights}
    for field, text in named.items():
        if text is not None:
            values[field] = [part.strip() for part in text.split(",") if part.strip()]
    return space.override(values)


def finish(outcome: "Outcome") -> None:
    """Say how a sweep ended and exit with its code."""
    for trial_id, error in list(outcome.errors.items())[:10]:
        print(f"failed: {trial_id}: {error.strip().splitlines()[-1] if error.strip() else 'unknown'}", file=sys.stderr)
    print(f"{outcome.ok} trials done, {len(outcome.errors)} failed, {outcome.left} left in {outcome.folder}")
    if outcome.stopped:
        print(f"stopped ({outcome.stopped}); to continue: raypatch resume {outcome.folder}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    print(f"the table: raypatch report {outcome.folder}")
    if outcome.errors or outcome.left:
        print("failed trials run again with --retry-failed", file=sys.stderr)
        raise typer.Exit(SOME_FAILED)


@app.command()
def resume(
    folder: RunFolder,
    data_dir: DataDir = None,
    executor: Annotated[Literal["ray", "local"] | None, typer.Option(help="Other than last time.")] = None,
    device: Annotated[str | None, typer.Option(help="Other than last time.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Other than last time.")] = None,
    gpu_share: Annotated[float | None, typer.Option(min=0.01, max=1, help="Other than last time.")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="Other than last time.")] = None,
    dashboard: Annotated[bool | None, typer.Option(help="Other than last time.")] = None,
    track: Annotated[Tracker | None, typer.Option(help="Other than last time.")] = None,
    retry_failed: RetryFailed = False,
    time_limit: TimeLimit = None,
) -> None:
    """Continue the last command of a run folder, as if it were typed again."""
    from raypatch.sweep.run import resume_sweep

    changes = {"data_dir": data_dir, "executor": executor, "device": device, "gpus": gpus}
    changes |= {"gpu_share": gpu_share, "cpus_per_trial": cpus_per_trial}
    changes |= {"dashboard": dashboard, "track": track}
    finish(resume_sweep(folder, changes, time_limit=seconds_of(time_limit), retry_failed=retry_failed))


@app.command()
def status(
    folder: RunFolder,
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
def data_list(data_dir: DataDir = None) -> None:
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
def data_fetch(name: str, data_dir: DataDir = None) -> None:
    """Download a MedMNIST file through the medmnist package's addresses, check its MD5, put it in place."""
    from raypatch.data.source import fetch

    print(fetch(name, data_dir=data_dir))


@data_app.command("verify")
def data_verify(name: str, data_dir: DataDir = None) -> None:
    """Check a MedMNIST file by its MD5, or an own .npz by its structure."""
    from raypatch.data.npz import inspect_npz
    from raypatch.data.source import verify

    if name.endswith(".npz"):
        info = inspect_npz(Path(name))
        print(f"{name}: {info.task}, {len(info.classes)} classes, {info.counts} images of {info.shape}")
    else:
        print(f"{verify(name, data_dir=data_dir)}: as published")


def micro_batch_of(text: str) -> int | Literal["auto"]:
    """Read --micro-batch. Raises ValueError."""
    if text == "auto":
        return "auto"
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"--micro-batch {text!r} must be auto or a number of at least 1")
    return int(text)


def seconds_of(text: str | None) -> float | None:
    """Read a time such as 90s, 30m, 8h or 1.5d; plain numbers are seconds. Raises ValueError."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--time-limit {text!r} must be a positive time such as 90s, 30m or 8h")
    return seconds


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
