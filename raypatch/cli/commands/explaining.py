"""The command that shows where models look."""

from pathlib import Path
from typing import Annotated

import typer

from raypatch.cli import options as cli_options
from raypatch.cli.commands.results import levels_of

app = typer.Typer()


@app.command()
def explain(
    folder: cli_options.RunFolder,
    dataset: Annotated[str | None, typer.Option(help="Only of this dataset.")] = None,
    level: Annotated[
        str | None,
        typer.Option(
            help="Levels of the study by commas, FACTOR=LEVEL where several factors are compared; default each."
        ),
    ] = None,
    patch_size: Annotated[str | None, typer.Option(help="Short for --level where the levels are patch sizes.")] = None,
    trial: Annotated[str | None, typer.Option(help="One trial, by its id.")] = None,
    images: Annotated[int | None, typer.Option(help="Test images; default all, 512 at most.")] = None,
    data: Annotated[str | None, typer.Option(help="New paths of own .npz files that were moved, by commas.")] = None,
    with_class_token: Annotated[
        bool,
        typer.Option(
            "--with-class-token", help="Attention distance: leave the class token's share in each row, at no distance."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Show where models look: attention distance of each head, attention and Grad-CAM maps, measured."""
    from raypatch.analysis.show.explained import describe_explanation
    from raypatch.explain.run import explain as explain_run

    levels = levels_of(level, patch_size)
    if trial is not None and levels is not None:
        raise ValueError("--trial and --level both choose what is explained; give one of them")
    found = explain_run(
        folder,
        dataset=dataset,
        levels=levels,
        trial=trial,
        images=images,
        moved=[Path(path) for path in cli_options.split_commas(data or "")],
        renormalise=not with_class_token,
        device=device,
        tell=print,
    )
    print(describe_explanation(folder))
    for note in found.notes:
        print(f"- {note}")
    print(f"written to {found.folder}; `raypatch report {folder}` shows the maps")
