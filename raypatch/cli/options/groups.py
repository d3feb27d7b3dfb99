"""The options, once each, in groups that commands share."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raypatch.cli.options.complete import complete_datasets, complete_settings, complete_studies
from raypatch.cli.options.texts import micro_batch_of, read_seeds, seconds_of, split_commas, stack_of

if TYPE_CHECKING:
    from raypatch.study import Study

Tracker = Literal["none", "mlflow", "wandb"]

Space = Annotated[
    str,
    typer.Argument(
        help="Name of a shipped study (`raypatch spaces`) or a .yaml file.",
        autocompletion=complete_studies,
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `raypatch run` made it.")]
RunsDir = Annotated[Path, typer.Option(help="Where run folders lie.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the .npz files; default $MEDMNIST_ROOT or ~/.medmnist.",
        show_default=False,
    ),
]
MicroBatch = Annotated[str, typer.Option(help="Images per forward pass: auto or a number.")]
Stack = Annotated[
    str, typer.Option(help="Seeds that fine-tune as one model of stacked weights, at most: auto, off or a number.")
]
Compile = Annotated[
    Literal["auto", "on", "off"], typer.Option(help="Compile the training pass; auto: long ones in bfloat16 on a CPU.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")]
TimeLimit = Annotated[
    str | None,
    typer.Option(help="Stop after this time, such as 8h or 30m.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]
Compare = Annotated[
    str | None,
    typer.Option(help="Factors to compare, separated by commas, instead of the study's.", show_default=False),
]
Sensitivity = Annotated[
    float | None,
    typer.Option(
        help="What decisions have to reach on validation, such as 0.95; default Youden's threshold.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Narrowing:
    """What a command changes in a study."""

    dataset: Annotated[
        str | None,
        typer.Option(
            help="Datasets: names or .npz paths, separated by commas.",
            autocompletion=complete_datasets,
        ),
    ] = None
    patch_size: Annotated[
        str | None,
        typer.Option(help="Patch sizes in pixels, separated by commas."),
    ] = None
    seed: Annotated[
        str | None,
        typer.Option(help="Seeds, separated by commas; 0-4 is a range."),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(help="timm names of models, separated by commas."),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(help="timm, random, or a .safetensors or .pth file."),
    ] = None
    # `set` is Python's own: the option has its name beside it.
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any field (`raypatch fields`) or axis of the study: --set epochs=5 --set lr=1e-4,1e-3.",
            autocompletion=complete_settings,
        ),
    ] = None
    compare: Compare = None

    def apply(self, study: "Study") -> "Study":
        """Return the study with these options in place of what its file says."""
        from raypatch.study import parse_setting

        values: dict[str, Sequence[Any]] = {}
        for setting in self.set_ or []:
            name, chosen = parse_setting(setting)
            values[name] = chosen
        # An option of its own wins over --set.
        for field in ("dataset", "patch_size", "model", "weights"):
            text = getattr(self, field)
            if text is not None:
                values[field] = split_commas(text)
        if self.seed is not None:
            values["seed"] = read_seeds(self.seed)
        narrowed = study.override(values)
        # The factors last: an axis may have come only by these options.
        if self.compare is None:
            return narrowed
        return narrowed.override_compare(split_commas(self.compare))


@dataclass(frozen=True)
class Place:
    """Where trials run and their data lies: fields of RunOptions."""

    data_dir: DataDir = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or with --executor local cuda:N.")] = "auto"
    micro_batch: MicroBatch = "auto"
    keep_masks: Annotated[
        bool, typer.Option("--keep-masks", help="Of a segmentation keep every pixel's probability, for ensembles.")
    ] = False
    stack: Stack = "auto"
    compile: Compile = "auto"

    def settings(self) -> dict[str, Any]:
        """As raypatch.run takes them."""
        read = {"micro_batch": micro_batch_of(self.micro_batch), "stack": stack_of(self.stack)}
        return dataclasses.asdict(self) | read


@dataclass(frozen=True)
class Detect:
    """What a plan also says of the differences that its seeds can show."""

    detect: Annotated[
        float | None,
        typer.Option(min=0.1, max=50, help="Also how many seeds show a difference of so many points."),
    ] = None
    score: Annotated[
        float,
        typer.Option(min=1, max=99, help="With --detect: about what all levels score, %."),
    ] = 80
    seed_spread: Annotated[
        float,
        typer.Option(min=0.1, max=30, help="With --detect: standard deviation over seeds, points."),
    ] = 4


@dataclass(frozen=True)
class Execution:
    """How trials are executed: fields of ExecutorOptions."""

    executor: Annotated[Literal["ray", "local"], typer.Option(help="Ray Tune, or one by one in this process.")] = "ray"
    address: Annotated[str, typer.Option(help="Of a running Ray cluster: its head's HOST:PORT, or auto.")] = "local"
    gpus: Annotated[int, typer.Option(min=1, help="Physical GPUs the whole sweep may use.")] = 1
    gpu_share: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            help="Share of a GPU per trial; default by memory and load.",
            show_default=False,
        ),
    ] = None
    mps: Annotated[bool, typer.Option(help="Let trials that share a GPU run at once, by NVIDIA's MPS.")] = True
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="Cores per trial.", show_default=False)] = None
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a crashed trial.")] = 2
    reuse_actors: Annotated[bool, typer.Option(help="Keep worker processes between trials.")] = True
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve Ray's dashboard on 127.0.0.1.")] = False
    track: Annotated[Tracker, typer.Option(help="Experiment tracker to tell of each epoch.")] = "none"

    def settings(self) -> dict[str, Any]:
        """As raypatch.run takes them."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Session:
    """Which run folder, what to do with failed trials, and until when."""

    name: Annotated[
        str | None,
        typer.Option(help="Name of the run folder; default the study, then datasets and recipe where changed."),
    ] = None
    runs_dir: RunsDir = Path("runs")
    retry_failed: RetryFailed = False
    time_limit: TimeLimit = None

    def folder(self, study: "Study", original: "Study") -> Path:
        """The run folder of a study that was changed from `original`."""
        from raypatch.study import check_name, default_run_name

        return self.runs_dir / check_name(self.name or default_run_name(study, original))

    def settings(self) -> dict[str, Any]:
        """As raypatch.run takes them."""
        return {"retry_failed": self.retry_failed, "time_limit": seconds_of(self.time_limit)}


@dataclass(frozen=True)
class Changes:
    """What a resumed sweep has otherwise than last time; None leaves it as it was."""

    data_dir: DataDir = None
    executor: Annotated[Literal["ray", "local"] | None, typer.Option(help="Other than last time.")] = None
    address: Annotated[str | None, typer.Option(help="Other than last time.")] = None
    device: Annotated[str | None, typer.Option(help="Other than last time.")] = None
    gpus: Annotated[int | None, typer.Option(min=1, help="Other than last time.")] = None
    gpu_share: Annotated[float | None, typer.Option(min=0.01, max=1, help="Other than last time.")] = None
    mps: Annotated[bool | None, typer.Option(help="Other than last time.")] = None
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="Other than last time.")] = None
    dashboard: Annotated[bool | None, typer.Option(help="Other than last time.")] = None
    track: Annotated[Tracker | None, typer.Option(help="Other than last time.")] = None
    stack: Annotated[str | None, typer.Option(help="Other than last time.")] = None
    compile: Annotated[Literal["auto", "on", "off"] | None, typer.Option(help="Other than last time.")] = None

    def settings(self) -> dict[str, Any]:
        """As raypatch.resume takes them."""
        return dataclasses.asdict(self) | {"stack": None if self.stack is None else stack_of(self.stack)}
