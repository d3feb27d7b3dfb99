"""The command line's options, once each, and how their text is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

if TYPE_CHECKING:
    from raypatch.study import Study

Datasets = Annotated[str | None, typer.Option(help="Datasets: names or .npz paths, separated by commas.")]
PatchSizes = Annotated[str | None, typer.Option(help="Patch sizes in pixels, separated by commas.")]
Model = Annotated[str | None, typer.Option(help="timm name of a Vision Transformer.")]
Weights = Annotated[str | None, typer.Option(help="timm, random, or a .safetensors or .pth file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Any field: --set epochs=5 --set lr=1e-4,1e-3.")]
RunsDir = Annotated[Path, typer.Option(help="Where run folders lie.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the .npz files; default $MEDMNIST_ROOT or ~/.medmnist.", show_default=False),
]
Executor = Annotated[Literal["ray", "local"], typer.Option(help="Ray Tune, or one by one in this process.")]
Address = Annotated[str, typer.Option(help="Of a running Ray cluster: its head's HOST:PORT, or auto.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or with --executor local cuda:N.")]
Gpus = Annotated[int, typer.Option(min=1, help="Physical GPUs the whole sweep may use.")]
GpuShare = Annotated[
    float | None,
    typer.Option(min=0.01, max=1, help="Share of a GPU per trial; default by memory and load.", show_default=False),
]
CpusPerTrial = Annotated[int | None, typer.Option(min=1, help="Cores per trial.", show_default=False)]
MicroBatch = Annotated[str, typer.Option(help="Images per forward pass: auto or a number.")]
Retries = Annotated[int, typer.Option(min=0, help="Further tries of a crashed trial.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")]
ReuseActors = Annotated[bool, typer.Option(help="Keep worker processes between trials.")]
Dashboard = Annotated[bool, typer.Option("--dashboard", help="Serve Ray's dashboard on 127.0.0.1.")]
Tracker = Literal["none", "mlflow", "wandb"]
Track = Annotated[Tracker, typer.Option(help="Experiment tracker to tell of each epoch.")]
TimeLimit = Annotated[str | None, typer.Option(help="Stop after this time, such as 8h or 30m.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `raypatch run` made it.")]


def narrow(
    space: "Study",
    dataset: str | None,
    patch_size: str | None,
    seed: str | None,
    model: str | None,
    weights: str | None,
    settings: Sequence[str],
) -> "Study":
    """Return the space with the options of the command line in place of what the file says."""
    from raypatch.study import parse_setting

    values: dict[str, list[Any]] = dict(parse_setting(text) for text in settings)
    named = {"dataset": dataset, "patch_size": patch_size, "seed": seed, "model": model, "weights": weights}
    for field, text in named.items():
        if text is not None:
            values[field] = [part.strip() for part in text.split(",") if part.strip()]
    return space.override(values)


def metric_of(text: str) -> str:
    """Read --metric. Raises ValueError for anything but a validation figure."""
    from raypatch.config import TrialConfig

    figures = get_args(TrialConfig.model_fields["selection"].annotation)
    if text not in figures:
        raise ValueError(f"--metric {text!r} must be one of {', '.join(figures)}; the test set never chooses")
    return text


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
