"""`raypatch data pack` and `data check`: own images made a dataset, and looked at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from raypatch.cli.options import DataDir, split_commas


def data_pack(
    source: Annotated[
        Path, typer.Argument(help="A folder with a sub-folder per class, a .csv beside images, DICOM, NIfTI, .h5.")
    ],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    size: Annotated[
        int | None,
        typer.Option(help="Edge in pixels or voxels; default the images' own, else 224 or 64.", show_default=False),
    ] = None,
    shape: Annotated[
        Literal["pad", "squeeze"], typer.Option(help="Keep the aspect and pad with black, or squeeze.")
    ] = "pad",
    intensity: Annotated[
        str | None,
        typer.Option(
            help="display, window:LOW,HIGH or percentile:LOW,HIGH; default by modality and type.", show_default=False
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="1 grey or 3 RGB, where they differ.", show_default=False)
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(help="2: each DICOM file a picture; 3: each series a volume.", show_default=False),
    ] = None,
    spacing: Annotated[
        float | None,
        typer.Option(help="Millimetres per voxel for all; default each fills the size.", show_default=False),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(help="Which volume, time or frame of several, from 0.", show_default=False)
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Of a table: image=A,label=B,patient=C,split=D,mask=E; label=A+B for several, - for none.",
            show_default=False,
        ),
    ] = None,
    uncertain: Annotated[
        str | None, typer.Option(help="What a label of -1 means: zero, one or drop.", show_default=False)
    ] = None,
    split: Annotated[
        Literal["auto", "given", "mended", "patient", "image"],
        typer.Option(help="As given, with torn patients mended, or dealt anew by patient or image."),
    ] = "auto",
    shares: Annotated[str, typer.Option(help="Of train, val and test.")] = ".7,.1,.2",
    folds: Annotated[int, typer.Option(help="Folds for cross-validation; --set fold=0,1,... runs them.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    ordinal: Annotated[bool, typer.Option("--ordinal", help="Classes are grades, ordered by name.")] = False,
    mirror_safe: Annotated[bool, typer.Option("--mirror-safe", help="A mirror image keeps its label.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out what is missing or cannot be read, and list it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the .npz if it is there.")] = False,
) -> None:
    """Pack own images into one .npz: read by one rule, split by patient, masks beside."""
    from raypatch.data.pack import PackOptions, pack, parse_columns, parse_intensity

    options = PackOptions(
        size=size,
        shape=shape,
        intensity=parse_intensity(intensity),
        channels=cast(Literal[1, 3] | None, _one_of("--channels", channels, (1, 3))),
        dimensions=cast(Literal[2, 3] | None, _one_of("--dimensions", dimensions, (2, 3))),
        spacing=spacing,
        frame=frame,
        columns=parse_columns(columns),
        uncertain=uncertain,
        split=split,
        shares=_shares(shares),
        folds=folds,
        seed=seed,
        ordinal=ordinal,
        mirror_safe=mirror_safe,
        skip_broken=skip_broken,
    )
    with shown_progress() as on_progress:
        path = pack(source, out, options, on_progress=on_progress, overwrite=overwrite)
    print(f"{path}: look at it with `raypatch data check {path}`, train with `raypatch run grid --dataset {path}`")


def _one_of(option: str, value: int | None, known: tuple[int, int]) -> int | None:
    if value is not None and value not in known:
        raise ValueError(f"{option} {value} must be {known[0]} or {known[1]}")
    return value


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = map(float, split_commas(text))
    except ValueError as error:
        raise ValueError(f"--shares {text!r} must be three numbers whose sum is 1, such as .7,.1,.2") from error
    return train, val, test


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time that is left, on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    tasks = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield on_progress


def data_check(
    source: Annotated[str, typer.Argument(help="An .npz, the name of a dataset, or what `data pack` takes.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for page and pictures; default NAME-check.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check a dataset before training: balance, intensities, repeated images, patients, and images to look at."""
    import tempfile

    from raypatch.data.check import check_file
    from raypatch.data.check.page import write_check
    from raypatch.data.own import is_source
    from raypatch.data.pack import PackOptions, pack
    from raypatch.data.source import locate

    notes: list[str] = []
    with shown_progress() as on_progress, tempfile.TemporaryDirectory() as scratch:
        if is_source(source):
            path = Path(scratch) / f"{Path(source).resolve().stem}.npz"
            # Everything that is wrong is to be seen, so what cannot be read is listed and left out.
            pack(Path(source), path, PackOptions(skip_broken=True), say=notes.append, on_progress=on_progress)
        else:
            path = Path(source) if source.endswith(".npz") else locate(source, data_dir=data_dir)
        findings = check_file(path, on_progress)
        page = write_check(findings, out or Path(f"{path.stem}-check"), notes)
    print("\n".join([*notes, *findings.lines()]))
    print(f"look at {page}")
