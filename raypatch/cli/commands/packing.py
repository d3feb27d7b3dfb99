"""`raypatch data pack` and `data check`: own images made a dataset, and looked at."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from raypatch.cli.options import DataDir, with_groups
from raypatch.cli.options.packing import Labelling, Reading, Splitting


@with_groups
def data_pack(
    source: Annotated[
        Path, typer.Argument(help="A folder with a sub-folder per class, a .csv beside images, DICOM, NIfTI, .h5.")
    ],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    reading: Reading,
    labelling: Labelling,
    splitting: Splitting,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the .npz if it is there.")] = False,
) -> None:
    """Pack own images into one .npz: read by one rule, split by patient, masks beside."""
    from raypatch.data.pack import PackOptions, pack

    options = PackOptions(**reading.settings(), **labelling.settings(), **splitting.settings())
    with shown_progress() as on_progress:
        path = pack(source, out, options, on_progress=on_progress, overwrite=overwrite)
    print(f"{path}: look at it with `raypatch data check {path}`, train with `raypatch run grid --dataset {path}`")


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time that is left, on a terminal; now and then a line elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from raypatch.storage.progress import ProgressLines

    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressLines(functools.partial(print, file=sys.stderr, flush=True))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    tasks = {}
    with Progress(*columns, console=console, transient=True) as progress:

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
