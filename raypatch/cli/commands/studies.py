"""Commands that say what there is before anything runs: spaces, study, fields."""

import json
from pathlib import Path
from typing import Annotated

import typer

from raypatch.cli import options as cli_options
from raypatch.cli.options.commands import StudyCommand, with_groups
from raypatch.cli.options.groups import Narrowing

app = typer.Typer()


@app.command()
def spaces(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this one's file whole.", autocompletion=cli_options.complete_studies),
    ] = None,
) -> None:
    """List the studies that come with raypatch, each with the question that it asks."""
    from raypatch.study import load_study, shipped_studies

    if name is not None:
        # Read once for its errors, so that a wrong file is not shown as if it were a study.
        load_study(name)
        print(shipped_studies().get(name, Path(name)).read_text("utf-8"), end="")
        return
    for stem in shipped_studies():
        study = load_study(stem)
        print(f"{stem:16} {study.question:36} {study.description}")


@app.command(cls=StudyCommand)
@with_groups
def study(space: cli_options.Space, narrowing: Narrowing, json_: cli_options.Json = False) -> None:
    """Show what a study would run: its factors with their levels, settings, datasets, recipe, rules
    and trials.
    """
    from raypatch.cli.describe import describe_study
    from raypatch.study import load_study

    described = describe_study(narrowing.apply(load_study(space)))
    print(json.dumps(described.as_data(), indent=1) if json_ else described.as_text())


@app.command()
def fields(
    name: Annotated[
        str | None,
        typer.Argument(help="Explain this one.", autocompletion=cli_options.complete_fields),
    ] = None,
    json_: cli_options.Json = False,
) -> None:
    """List the fields of a trial: role, default, allowed values and meaning.

    All can be set, fixed or varied.
    """
    import dataclasses

    from raypatch.cli.describe import describe_field, fields_by_role, list_fields

    names = [name] if name else fields_by_role()
    described = [describe_field(each) for each in names]
    if json_:
        print(json.dumps([dataclasses.asdict(field) for field in described], indent=1))
        return
    print(list_fields(described))
    if name:
        print(f"{'':16} In a study: `fixed: {{{name}: …}}` or `grid: {{{name}: […, …]}}`.")
        print(f"{'':15} On the command line: --set {name}=… in place of what the study says.")
