"""Commands about run folders as such: runs lists them, clean frees room in one."""

from pathlib import Path
from typing import Annotated

import typer

from raypatch.cli import options as cli_options

app = typer.Typer()


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Where run folders lie.")] = Path("runs"),
    json_: cli_options.Json = False,
) -> None:
    """List run folders with their state, question, size and age."""
    import dataclasses
    import json

    from raypatch.run_folders import list_runs, word_bytes
    from raypatch.words import duration

    listed = list_runs(folder)
    if json_:
        print(json.dumps([dataclasses.asdict(run) for run in listed], indent=1))
        return
    width = max([4, *(len(run.name) for run in listed)])
    for run in listed:
        size = word_bytes(run.size_bytes)
        age = f"{duration(run.age_seconds)} ago"
        print(f"{run.name:{width}}  {run.state:24} {size:>9}  {age:14} {run.question}")
    if not listed:
        print(f"no run folders in {folder}")


@app.command()
def clean(
    folder: cli_options.RunFolder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what a finished run can do without: weights of all but the best trial per level, and
    event files.

    Results, predictions and logs stay, so that report, compare and predict answer as before.
    """
    from raypatch.run_folders import find_removable, remove_files, word_bytes

    removable = find_removable(folder)
    if not removable.files:
        print(f"nothing to remove in {folder}")
        return
    print(removable.describe())
    if not yes and not typer.confirm(f"Remove them and free {word_bytes(removable.size_bytes)}?"):
        print("nothing was removed")
        return
    remove_files(folder, removable)
    print(f"freed {word_bytes(removable.size_bytes)} in {folder}")
