"""Commands that take a run to others: tested on their data, exported to them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from raypatch.cli import options as cli_options
from raypatch.words import counted

app = typer.Typer()


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
    from raypatch.analysis.external.evaluate import Asked, evaluate_external
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
        str | None,
        typer.Option(help="A trial's id; default the best by validation, as `predict` takes it.", show_default=False),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Trained on this dataset, where the run has several.")] = None,
    level: Annotated[str | None, typer.Option(help="Level of the study whose best trial is taken.")] = None,
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
    if trial is not None and (dataset or level):
        raise ValueError("--trial names one model: leave out --dataset and --level, which choose one")
    if all_results:
        if trial or dataset or level or card or upload or licence:
            raise ValueError(
                "--all-results is about all models; --trial, --dataset, --level, --card, --licence and --upload are"
                " about one: give one or the other"
            )
        _export_results(folder, out, with_names=with_names)
        return
    if with_names:
        raise ValueError("--with-names belongs to --all-results: a model holds no names")
    from raypatch.predict import choose_members, describe_choice, export_trial, find_trials, timm_loads

    found = find_trials(folder)
    if trial is None:
        (best,) = choose_members(found, dataset, [level] if level else None)
        trial = best.result.trial_id
        print(f"{trial}: {describe_choice(folder, [trial])}")
    written = export_trial(folder, trial, out)
    (member,) = [one for one in found.trials if one.result.trial_id == trial]
    if card or upload or licence:
        from raypatch.analysis.card import write_card

        print(f"card: {', '.join(map(str, write_card(member, written, licence)))}")
    in_timm = f'timm.create_model("local-dir:{written}", pretrained=True), or ' if timm_loads(member) else ""
    print(f"{written}: {in_timm}raypatch.predict.load_exported")
    if upload:
        from raypatch.predict.share import upload as upload_folder

        print(f"uploaded: {upload_folder(written, upload)}")


def _export_results(folder: Path, out: Path, *, with_names: bool) -> None:
    from raypatch.predict.share import export_results

    written, trials = export_results(folder, out, with_names=with_names)
    names = "with the names of patients and images" if with_names else "patients numbered, images without names"
    print(f"{counted(trials, 'trial')} in {written}, {names}; no weights, no images.")
    print(f"To read them: raypatch report {written}")
