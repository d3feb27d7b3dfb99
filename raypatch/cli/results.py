"""Commands that use what a run left: report, compare, predict, export; and what a model costs."""

import csv
from pathlib import Path
from typing import Annotated, Literal

import typer

from raypatch.cli import options as cli_options

app = typer.Typer()
MOST_COUNTED_TOKENS = 4096


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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Predict new images with a run's best model, or the ensemble of some levels; best by validation."""
    from raypatch.predict import predict as predict_images
    from raypatch.storage.files import write_atomically

    # Looked at first: the prediction may take long.
    if not out.parent.is_dir() or out.is_dir():
        rule = f"there must be a folder {out.parent}, and no folder of that name in it"
        raise ValueError(f"--out {out}: {rule}")
    levels = levels_of(level, patch_size)
    found = predict_images(
        folder,
        input_,
        dataset=dataset,
        levels=levels,
        split=split,
        device=device,
    )
    write_atomically(out, found.table.encode())
    print(f"{_rows(found.table)} images predicted by {', '.join(found.members)}, in {out}")
    if found.patients is not None:
        beside = out.with_name(f"{out.stem}_patients.csv")
        write_atomically(beside, found.patients.encode())
        print(f"{_rows(found.patients)} patients, the mean of their images, in {beside}")


def _rows(table: str) -> int:
    # The first line is the heading; a quoted name may hold line breaks.
    return sum(1 for _ in csv.reader(table.splitlines(keepends=True))) - 1


@app.command()
def evaluate(
    folder: cli_options.RunFolder,
    data: Annotated[
        Path, typer.Option("--data", help="Labelled data of another source: an .npz, class folders, or a table.")
    ],
    dataset: Annotated[str | None, typer.Option(help="Trained on this dataset, where the run has several.")] = None,
    level: Annotated[
        str | None, typer.Option(help="Level of the study; default the one that validation prefers.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which split of the data.")] = "test",
    rename: Annotated[
        str | None, typer.Option(help="Classes by the model's names: THEIRS=OURS,...", show_default=False)
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of a table: image=NAME,label=NAME,patient=NAME.", show_default=False)
    ] = None,
    sensitivity: cli_options.Sensitivity = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; default external/NAME in the run folder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json_: cli_options.Json = False,
) -> None:
    """Test a run's best model, all its seeds, on data of another source: scores beside the internal ones, the drop."""
    from raypatch.analysis.external import Asked, evaluate_external
    from raypatch.data.pack import parse_columns

    asked = Asked(
        data=data,
        dataset=dataset,
        level=level,
        split=split,
        rename=_pairs("--rename", rename),
        columns=parse_columns(columns),
        sensitivity=sensitivity,
        device=device,
    )
    written = evaluate_external(folder, asked, out)
    if json_:
        print(written.as_json())
        return
    print(written.text)
    print(f"written to {written.folder}: {', '.join(path.name for path in written.files[:5])} ...")


def _pairs(option: str, text: str | None) -> dict[str, str]:
    """Read THEIRS=OURS,... Raises ValueError."""
    pairs = {}
    for part in cli_options.split_commas(text) if text else ():
        theirs, separator, ours = part.partition("=")
        if not separator or not theirs.strip() or not ours.strip():
            raise ValueError(f"{option} {part!r} must be THEIRS=OURS, such as {option} malignant=MEL")
        pairs[theirs.strip()] = ours.strip()
    return pairs


@app.command()
def export(
    folder: cli_options.RunFolder,
    trial: Annotated[
        str | None, typer.Option(help="The trial's id, as in `raypatch status` and the report.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("exported"),
    card: Annotated[bool, typer.Option("--card", help="With a model card: README.md and card.html.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the model, for its card, such as apache-2.0.", show_default=False)
    ] = None,
    upload: Annotated[
        str | None,
        typer.Option(help="To the Hugging Face hub as OWNER/NAME, with its card; needs $HF_TOKEN.", show_default=False),
    ] = None,
    all_results: Annotated[
        bool, typer.Option("--all-results", help="All that a report needs of the run, without weights and images.")
    ] = False,
    with_names: Annotated[
        bool, typer.Option("--with-names", help="With --all-results: keep the names of patients and images.")
    ] = False,
) -> None:
    """Write a trial's model for timm (2D) or raypatch.predict.load_exported, or a run's results for a colleague."""
    if all_results == (trial is not None):
        raise ValueError("give --trial ID for a model, or --all-results for what a report needs")
    if all_results:
        if card or upload or licence:
            raise ValueError("--card, --licence and --upload are about one model: give --trial ID with them")
        _export_results(folder, out, with_names=with_names)
        return
    if with_names:
        raise ValueError("--with-names belongs to --all-results: a model holds no names")
    assert trial is not None
    from raypatch.predict import export_trial, find_trials

    written = export_trial(folder, trial, out)
    if card or upload or licence:
        from raypatch.analysis.card import write_card

        (member,) = [one for one in find_trials(folder).trials if one.result.trial_id == trial]
        print(f"card: {', '.join(map(str, write_card(member, written, licence)))}")
    in_timm = f'timm.create_model("local-dir:{written}", pretrained=True)'
    print(f"{written}: {in_timm}, or raypatch.predict.load_exported")
    if upload:
        from raypatch.predict.share import upload as upload_folder

        print(f"uploaded: {upload_folder(written, upload)}")


def _export_results(folder: Path, out: Path, *, with_names: bool) -> None:
    from raypatch.predict.share import export_results

    written, trials = export_results(folder, out, with_names=with_names)
    names = "with the names of patients and images" if with_names else "patients numbered, images without names"
    print(f"{trials} trials in {written}, {names}; no weights, no images. To read them: raypatch report {written}")


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="timm name of a Vision Transformer.")],
    patch_size: Annotated[
        str,
        typer.Option(help="Patch sizes in pixels, separated by commas."),
    ] = "28,14,7,4,2,1",
    image_size: Annotated[int, typer.Option(help="Edge of the image or volume, pixels.")] = 28,
    volumes: Annotated[
        bool,
        typer.Option("--volumes", help="For 3D volumes instead of 2D images."),
    ] = False,
    classes: Annotated[int, typer.Option(min=1, help="Outputs of the head.")] = 2,
    count: Annotated[
        bool,
        typer.Option("--count", help="Also count with fvcore, up to 4096 tokens."),
    ] = False,
) -> None:
    """Show what a model costs at each patch size: tokens, parameters, GFLOPs per image."""
    from raypatch.config import make_config
    from raypatch.models.build import build_model
    from raypatch.models.flops import count_with_fvcore, model_facts

    # A trial needs some dataset: any of these dimensions will do.
    dimensions, dataset = (3, "phantom3d") if volumes else (2, "phantom2d")
    heading = f"{'patch':>5} {'tokens':>7} {'parameters':>12} {'GFLOPs':>10} {'without attention':>18}"
    if count:
        heading += f" {'by fvcore':>10}"
    print(heading)
    for patch in patch_size.split(","):
        fields = {
            "patch_size": patch,
            "model": name,
            "image_size": image_size,
            "dataset": dataset,
            "weights": "random",
        }
        config = make_config(fields)
        facts = model_facts(config, dimensions=dimensions, outputs=classes)
        tokens = facts.tokens or 0
        line = f"{patch:>5} {tokens:7,} {facts.parameters:12,} {facts.gflops:10.4g}"
        line += f" {facts.gflops_without_attention:18.4g}"
        # fvcore runs the model: with more tokens that takes minutes, and all of the memory.
        if count and tokens <= MOST_COUNTED_TOKENS:
            built = build_model(config, dimensions=dimensions, outputs=classes, files={})
            shape = (3, *(image_size,) * dimensions)
            line += f" {count_with_fvcore(built.model, shape):10.4g}"
        print(line)
