"""Commands that use what a run left: report, compare, predict."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raypatch.cli import options as cli_options
from raypatch.words import counted

if TYPE_CHECKING:
    from raypatch.predict import PredictedMasks, Prediction

app = typer.Typer()


def levels_of(level: str | None, patch_size: str | None) -> list[str] | None:
    """Read --level and its short form for patch sizes.

    Raises ValueError for both, and for a patch size in words.
    """
    if level is not None and patch_size is not None:
        raise ValueError("--level and --patch-size say the same thing; give one of them")
    if patch_size is not None:
        sizes = cli_options.split_commas(patch_size)
        if not "".join(sizes).isdecimal():
            raise ValueError(f"--patch-size {patch_size!r} must be numbers of pixels, such as 4,2,1")
        return [f"patch_size={size}" for size in sizes]
    return None if level is None else cli_options.split_commas(level)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run folder or several.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; default report/ in the run folder."),
    ] = None,
    formats: Annotated[
        str,
        typer.Option("--format", help="Some of html, md, latex, by commas."),
    ] = "html,md,latex",
    compare: cli_options.Compare = None,
    without_twins: Annotated[
        bool, typer.Option("--without-twins", help="Leave out test images that repeat one of train or val.")
    ] = False,
    sensitivity: cli_options.Sensitivity = None,
    checklist: Annotated[
        bool, typer.Option("--checklist", help="Add what the run can say to the items of TRIPOD+AI and CLAIM.")
    ] = False,
    json_: cli_options.Json = False,
) -> None:
    """Print the answer and write tables, ensembles, statistics, plots and a page; also while it runs."""
    from raypatch.api import report as write_report

    factors = None if compare is None else cli_options.split_commas(compare)
    written = write_report(
        runs,
        out=out,
        formats=cli_options.split_commas(formats),
        compare=factors,
        without_twins=without_twins,
        sensitivity=sensitivity,
        checklist=checklist,
    )
    if json_:
        print(written.as_json())
        return
    print(written.text)
    # The first ones are those to open; the rest are plots.
    names = ", ".join(path.name for path in written.files[:6])
    print(f"written to {written.folder}: {names} ...")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run folder.")],
    second: Annotated[Path, typer.Argument(help="Another; differences are second minus first.")],
    metric: Annotated[
        str | None,
        typer.Option(help="Score to compare, such as accuracy or auc; default the run's own."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; default in the first run's report."),
    ] = None,
    json_: cli_options.Json = False,
) -> None:
    """Put two runs side by side: the same datasets and levels, with intervals of their difference."""
    from raypatch.analysis.compare import compare_runs

    written = compare_runs(first, second, out, metric=metric)
    print(written.as_json() if json_ else f"{written.text}\nwritten to {written.folder}")


@app.command()
def predict(
    folder: cli_options.RunFolder,
    input_: Annotated[
        Path,
        typer.Option("--input", help="An .npz, a folder of images or of class folders, a table, or one image."),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(help="Trained on this dataset, where the run has several."),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            help="Levels of the study by commas, FACTOR=LEVEL where several factors are compared:"
            " their ensemble; default the best single model."
        ),
    ] = None,
    patch_size: Annotated[
        str | None,
        typer.Option(help="Short for --level where the levels are patch sizes."),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which split of an .npz.")] = "test",
    out: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("predictions.csv"),
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Of a segmentation: a folder for a PNG of each mask (.nii.gz of NIfTI), or one .npz; default a folder"
            " beside --out."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Predict new images with a run's best model, or the ensemble of some levels; best by validation."""
    from raypatch.predict import describe_choice, has_masks, predict_masks
    from raypatch.predict import predict as predict_images

    # Looked at first: the prediction may take long.
    _check_place(out)
    levels = levels_of(level, patch_size)
    if has_masks(folder, dataset, levels):
        drawn = predict_masks(folder, input_, dataset=dataset, levels=levels, split=split, device=device)
        _keep_masks(drawn, out, masks or out.with_name(f"{out.stem}_masks"))
        print(describe_choice(folder, drawn.members))
        return
    if masks is not None:
        raise ValueError(f"--masks {masks} is for a segmentation; {folder} predicts classes")
    found = predict_images(folder, input_, dataset=dataset, levels=levels, split=split, device=device)
    _keep_classes(found, out)
    print(describe_choice(folder, found.members))


def _check_place(out: Path) -> None:
    """Raise ValueError where no file can be written."""
    if not out.parent.is_dir() or out.is_dir():
        rule = f"there must be a folder {out.parent}, and no folder of that name in it"
        raise ValueError(f"--out {out}: {rule}")


def _keep_masks(drawn: "PredictedMasks", out: Path, place: Path) -> None:
    """Write the table to `out` and the masks to `place`, and say so."""
    from raypatch.predict import write_masks
    from raypatch.storage.files import write_atomically

    write_atomically(out, drawn.table().encode())
    written = write_masks(drawn, place)
    print(f"{len(drawn.names)} images predicted by {', '.join(drawn.members)}, in {out}")
    print(f"{len(written)} mask {'file' if len(written) == 1 else 'files'}: {place}")


def _keep_classes(found: "Prediction", out: Path) -> None:
    """Write the table to `out`, that of patients beside it, and say so."""
    from raypatch.storage.files import write_atomically

    write_atomically(out, found.table.encode())
    print(f"{counted(_rows(found.table), 'image')} predicted by {', '.join(found.members)}, in {out}")
    if found.patients is not None:
        beside = out.with_name(f"{out.stem}_patients.csv")
        write_atomically(beside, found.patients.encode())
        print(f"{counted(_rows(found.patients), 'patient')}, the mean of their images, in {beside}")


def _rows(table: str) -> int:
    # The first line is the heading; a quoted name may hold line breaks.
    return sum(1 for _ in csv.reader(table.splitlines(keepends=True))) - 1
