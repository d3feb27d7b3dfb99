"""Two runs side by side: the same datasets and patch sizes, what differs in the recipe, whether the scores differ."""

from pathlib import Path

import pandas as pd

from raypatch.analysis.answer.cells import DATASET_KEYS, finished, recipe_fields, select_recipes
from raypatch.analysis.answer.evidence import usable_predictions
from raypatch.analysis.load import CONFIG_COLUMNS, HEADLINE, METRICS, load_study
from raypatch.analysis.report import ReportFiles
from raypatch.analysis.show.render import (
    Cell,
    Table,
    interval,
    p_value,
    percent,
    points,
    to_latex,
    to_markdown,
    write_csv,
)
from raypatch.analysis.show.tables import summarize
from raypatch.analysis.statistics.ranks import ALPHA, correct_holm
from raypatch.analysis.statistics.resampling import RESAMPLES, bootstrap_difference, draw_images
from raypatch.analysis.statistics.stacks import MisalignedError, load_stack
from raypatch.files import write_atomically
from raypatch.results import SweepPaths


def compare_runs(
    first: Path | str,
    second: Path | str,
    out: Path | None = None,
    *,
    metric: str = HEADLINE,
    resamples: int = RESAMPLES,
) -> ReportFiles:
    """Compare two runs cell by cell on the test split and write compare.md, compare.csv, compare.tex to `out`.

    out: default compare-SECOND/ in the first run's report folder. Raises ValueError for an unknown metric, a folder
    that is no run folder, or runs without a finished trial in a common cell.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; use one of {', '.join(METRICS)}")
    paths = [Path(first), Path(second)]
    sides = [select_recipes(load_study(path).trials) for path in paths]
    table, notes = compare_trials(sides[0], sides[1], [_name(path) for path in paths], metric, resamples)
    folder = out or SweepPaths(paths[0]).report / f"compare-{_name(paths[1])}"
    text = "\n".join([to_markdown(table), *(f"- {note}" for note in notes), ""])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"compare.{suffix}" for suffix in ("md", "tex", "csv")]
        write_atomically(files[0], text.encode())
        write_atomically(files[1], to_latex(table).encode())
        write_csv(table, files[2])
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}; give another --out") from error
    return ReportFiles(folder, tuple(files), text)


def _name(path: Path) -> str:
    return path.resolve().name


def compare_trials(
    first: pd.DataFrame, second: pd.DataFrame, names: list[str], metric: str = HEADLINE, resamples: int = RESAMPLES
) -> tuple[Table, list[str]]:
    """Return the table of the cells that both have, and notes on what differs, is missing or could not be tested.

    first, second: one recipe per series and patch size, see `select_recipes`. names: of the two, for people. The
    difference is second - first. Raises ValueError where there is no common cell.
    """
    fields = list(dict.fromkeys(recipe_fields(first) + recipe_fields(second)))
    keys = [*DATASET_KEYS, *fields, "patch_size"]
    score = [f"test_{metric}_mean", f"test_{metric}_std"]
    cells = [summarize(finished(side), keys)[[*keys, "seeds", *score]] for side in (first, second)]
    both = cells[0].merge(cells[1], on=keys, suffixes=("_first", "_second"))
    if both.empty:
        raise ValueError(f"{names[0]} and {names[1]} have no dataset and patch size in common: nothing to compare")
    both = both.sort_values(keys, ascending=[*[True] * (len(keys) - 1), False], ignore_index=True)
    tests, notes = _test_cells(both[keys], first, second, metric, resamples)
    both = both.join(tests)
    both["p_holm"] = correct_holm(both["p"])
    notes = [*_describe_recipes(both[keys], first, second, names), *notes]
    for name, own in zip(names, cells, strict=True):
        if len(own) > len(both):
            notes.append(f"{len(own) - len(both)} cells are in {name} alone and not shown.")
    return _table(both, fields, names, metric), notes


def _test_cells(
    cells: pd.DataFrame, first: pd.DataFrame, second: pd.DataFrame, metric: str, resamples: int
) -> tuple[pd.DataFrame, list[str]]:
    """Test each cell; return gain, low, high, p in the order of `cells`, and why a cell could not be tested."""
    (first, lost_first), (second, lost_second) = usable_predictions(first), usable_predictions(second)
    notes = [str(problem) for problem in (*lost_first, *lost_second)]
    rows = []
    for key in cells.to_dict("records"):
        sides = [side[(side[list(key)] == pd.Series(key)).all(axis=1)] for side in (first, second)]
        row = {"low": float("nan"), "high": float("nan"), "p": float("nan")}
        if not any(side.empty for side in sides):
            one, other = (load_stack(side, "test") for side in sides)
            weights = draw_images(one.label, resamples)
            try:
                found = bootstrap_difference(other, one, sides[0]["task"].iloc[0], metric, weights)
                row = {"low": found.low, "high": found.high, "p": found.p}
            except MisalignedError:
                notes.append(f"{key['dataset_label']}: the two runs hold different test images; not tested.")
        rows.append(row)
    return pd.DataFrame(rows), list(dict.fromkeys(notes))


def _describe_recipes(cells: pd.DataFrame, first: pd.DataFrame, second: pd.DataFrame, names: list[str]) -> list[str]:
    """Say in which fields the trials of the common cells differ between the runs."""
    sides = [side.merge(cells, on=list(cells.columns)) for side in (first, second)]
    notes = []
    for field in CONFIG_COLUMNS:
        values = [sorted(set(side[field])) for side in sides]
        if values[0] != values[1]:
            shown = (f"{', '.join(map(str, own))} in {name}" for own, name in zip(values, names, strict=True))
            notes.append(f"{field}: {'; '.join(shown)}.")
    return notes or ["The recipes of the two runs are the same."]


def _table(both: pd.DataFrame, fields: list[str], names: list[str], metric: str) -> Table:
    label = METRICS[metric]
    rows = []
    for row in both.to_dict("records"):
        means = [row[f"test_{metric}_mean_{side}"] for side in ("first", "second")]
        spreads = [row[f"test_{metric}_std_{side}"] for side in ("first", "second")]
        rows.append(
            (
                *(Cell(str(row[name])) for name in ("dataset_label", *fields, "patch_size")),
                *(Cell(percent(mean, spread)) for mean, spread in zip(means, spreads, strict=True)),
                Cell(points(means[1] - means[0]), best=row["p_holm"] < ALPHA),
                Cell(interval(row["low"], row["high"])),
                Cell(p_value(row["p_holm"])),
            )
        )
    return Table(
        name="compare",
        title=f"{label} of {names[0]} and {names[1]}",
        columns=("Dataset", *fields, "Patch", *names, "Difference", "95 % interval", "p (Holm)"),
        blocks=(tuple(rows),),
        labels=2 + len(fields),
        note=(
            "Percent on the test split, mean ± sample standard deviation over seeds; difference in percentage points,"
            " second run less first, paired bootstrap over images and seeds. Bold: p < 0.05 after Holm's correction."
        ),
        data=both,
    )
