"""Commands about datasets: list, fetch and verify them."""

from pathlib import Path
from typing import Annotated

import typer

from raypatch.cli import options as cli_options
from raypatch.cli.commands.packing import data_check, data_pack
from raypatch.data.catalog import SPLITS

app = typer.Typer()
data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, fetch and verify datasets.",
)
app.add_typer(data_app, name="data")
data_app.command("pack")(data_pack)
data_app.command("check")(data_check)


@data_app.command("list")
def data_list(data_dir: cli_options.DataDir = None) -> None:
    """List all datasets known by name, with task, size and whether the file is there."""
    from raypatch.data.catalog import catalog
    from raypatch.data.source import data_folder

    folder = data_folder(data_dir)
    print(f"{'name':22}{'task':12}{'image':>16}{'classes':>9}{'train/val/test':>22}  in {folder}")
    for info in catalog().values():
        shape = "x".join(map(str, info.shape))
        if info.channels == 3:
            shape += " RGB"
        counts = "/".join(map(str, info.counts))
        state = "yes" if (folder / f"{info.name}.npz").exists() else "-"
        if info.made_up:
            # There is no file of these, and none is needed.
            state = "made up"
        print(f"{info.name:22}{info.task:12}{shape:>16}{len(info.classes):>9}{counts:>22}  {state}")


@data_app.command("fetch")
def data_fetch(name: str, data_dir: cli_options.DataDir = None) -> None:
    """Download a MedMNIST file through the medmnist package's addresses, check its MD5, put it in
    place.
    """
    from raypatch.data.fetch import fetch

    print(fetch(name, data_dir=data_dir))


@data_app.command("verify")
def data_verify(
    name: str,
    data_dir: cli_options.DataDir = None,
    twins: Annotated[
        bool,
        typer.Option(help="Look for images that repeat one of an earlier split."),
    ] = True,
    all_: Annotated[
        bool,
        typer.Option("--all", help="List all such images and patients, not the first."),
    ] = False,
) -> None:
    """Check a MedMNIST file by its MD5, or an own .npz by its structure; say which test images are
    no new ones, and which patients are in two splits.
    """
    from raypatch.data.check import describe_torn_patients
    from raypatch.data.check.twins import describe_twins, find_twins
    from raypatch.data.fetch import verify
    from raypatch.data.layout.npz import inspect_npz

    if name.endswith(".npz"):
        path = Path(name)
        info = inspect_npz(path)
        print(f"{name}: {info.task}, {len(info.classes)} classes, {info.counts} images of {info.shape}")
    else:
        path = verify(name, data_dir=data_dir)
        info = inspect_npz(path)
        print(f"{path}: as published")
    if name.endswith(".npz"):
        print("\n".join(describe_torn_patients(path, show=None if all_ else 5)))
    if twins:
        counts = dict(zip(SPLITS, info.counts, strict=True))
        show = None if all_ else 20
        lines = describe_twins(find_twins(path), counts, show=show)
        print("\n".join(lines))
