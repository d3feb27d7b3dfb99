"""Two runs side by side: the cells that both have, what differs in the recipe, whether the scores differ."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from raypatch.analysis.answer.evidence import usable_predictions
from raypatch.analysis.answer.scores.cells import DATASET_KEYS, ask, finished, level_names, plain_values, select_recipes
from raypatch.analysis.answer.scores.metrics import headline_metric
from raypatch.analysis.answer.scores.summary import summarize
from raypatch.analysis.frames.columns import CONFIG_COLUMNS
from raypatch.analysis.frames.load import Results, load_study
from raypatch.analysis.show.tables.latex import to_latex
from raypatch.analysis.show.tables.table import Cell, Row, Table, list_items, text_cells, to_markdown, write_csv
from raypatch.analysis.statistics.draws import RESAMPLES, Draws, measure_level
from raypatch.analysis.statistics.inference import Interval, difference_interval
from raypatch.analysis.statistics.ranks import ALPHA, correct_holm
from raypatch.analysis.statistics.stacks import MisalignedError, load_stack, require_same_images
from raypatch.analysis.wording import interval, p_value, percent, points
from raypatch.analysis.written import Written, as_records
from raypatch.config import TrialConfig
from raypatch.factors import Factor, factor_of_axis, factor_of_field, field_label
from raypatch.results import SweepPaths
from raypatch.storage.files import write_atomically
from raypatch.tasks import Metric, find_task


@dataclass(frozen=True)
class Side:
    """One of the two runs. trials: finished, one recipe per series and level, with the columns of the cells as text."""

    name: str
    trials: pd.DataFrame


def compare_runs(
    first: Path | str,
    second: Path | str,
    out: Path | None = None,
    *,
    metric: str | None = None,
    resamples: int = RESAMPLES,
) -> Written:
    """Compare two runs cell by cell on the test split and write compare.md, compare.csv, compare.tex to `out`.

    out: default compare-SECOND/ in the first run's report folder. metric: default the first run's.
    Raises ValueError for an unknown metric, a folder that is no run folder, or runs without a
    finished trial in a common cell.
    """
    paths = [Path(first), Path(second)]
    if paths[0].resolve() == paths[1].resolve():
        raise ValueError(f"{first} and {second} are the same run folder: give two")
    results = [load_study(path) for path in paths]
    done = finished(results[0].trials)
    if done.empty:
        raise ValueError(f"{paths[0]} has no finished trial: nothing to compare")
    judged = headline_metric(done, metric or results[0].metric)
    factors = cell_factors(results)
    sides = []
    for path, one in zip(paths, results, strict=True):
        sides.append(Side(_name(path), _chosen_trials(one, factors)))
    table, notes = compare_sides(sides, factors, judged, resamples)
    folder = out or SweepPaths(paths[0]).report / f"compare-{_name(paths[1])}"
    text = "\n".join([to_markdown(table), *list_items(notes), ""])
    try:
        files = _write(folder, table, text)
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror or error}; give another --out") from error
    return Written(folder, files, text, {"title": table.title, "rows": as_records(table.data), "notes": notes})


def _write(folder: Path, table: Table, text: str) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    markdown, latex, numbers = folder / "compare.md", folder / "compare.tex", folder / "compare.csv"
    write_atomically(markdown, text.encode())
    write_atomically(latex, to_latex(table).encode())
    write_csv(table, numbers)
    return markdown, latex, numbers


def _name(path: Path) -> str:
    return path.resolve().name


def cell_factors(results: Sequence[Results]) -> list[Factor]:
    """Return what tells the cells of the runs apart beside the dataset: settings first, then what they compare.

    An axis of named levels that only one run has counts by the fields that its levels set.
    """
    names: list[str] = []
    for one in results:
        for setting in ask(one, one.factors[0]).settings:
            if setting not in one.factors:
                names.append(setting.name)
    compared: Counter[str] = Counter()
    for one in results:
        compared.update(_names(one.factors))
    for one in results:
        for factor in one.factors:
            in_all_runs = compared[factor.name] == len(results)
            if in_all_runs or factor.name in TrialConfig.model_fields:
                names.append(factor.name)
            else:
                names += sorted(factor.fields)
    # Both runs name most of them: each once, in the order in which it comes first.
    return [_common_factor(name, results) for name in dict.fromkeys(names)]


def _names(factors: Sequence[Factor]) -> list[str]:
    return [factor.name for factor in factors]


def _common_factor(name: str, results: Sequence[Results]) -> Factor:
    """The factor with the levels of all runs."""
    if name in TrialConfig.model_fields:
        values: list[object] = []
        for one in results:
            values += plain_values(finished(one.trials)[name])
        return factor_of_field(name, values)
    levels = {}
    for one in results:
        for factor in one.factors:
            if factor.name == name:
                levels.update({level.name: level.fields for level in factor.levels})
    return factor_of_axis(name, levels)


def _chosen_trials(results: Results, factors: Sequence[Factor]) -> pd.DataFrame:
    """The trials of one recipe per series and level, with a column of text per factor of the cells."""
    done = finished(results.trials)
    if done.empty:
        return done
    chosen = select_recipes(ask(results, results.factors[0]))
    trials = done[done["trial_id"].isin(chosen["trial_id"])].copy()
    for factor in factors:
        if factor.name in TrialConfig.model_fields:
            trials[factor.name] = level_names(trials[factor.name], factor)
        else:
            trials[factor.name] = results.levels.loc[trials.index, factor.name]
    return trials.sort_values(["dataset", "seed"], kind="stable")


def compare_sides(
    sides: Sequence[Side], factors: Sequence[Factor], metric: Metric, resamples: int = RESAMPLES
) -> tuple[Table, list[str]]:
    """Return the table of the cells that both have, and notes on what differs, is missing or could not be tested.

    The difference is second - first. Raises ValueError where there is no common cell.
    """
    keys = [*DATASET_KEYS, *_names(factors)]
    shown = [*keys, "seeds", f"test_{metric.name}_mean", f"test_{metric.name}_std"]
    cells = [summarize(side.trials, keys, [metric.name])[shown] for side in sides]
    both = cells[0].merge(cells[1], on=keys, suffixes=("_first", "_second"))
    if both.empty:
        raise ValueError(_nothing_in_common(sides, factors))
    both = _in_order(both, factors)
    tests, untested = _test_cells(both[keys], sides, metric, resamples)
    mean = f"test_{metric.name}_mean"
    both["difference"] = both[f"{mean}_second"] - both[f"{mean}_first"]
    both = both.join(tests)
    both["p_holm"] = correct_holm(both["p"])
    notes = [*_describe_recipes(both[keys], sides), *untested]
    for side, own in zip(sides, cells, strict=True):
        if len(own) > len(both):
            notes.append(f"{len(own) - len(both)} cells are in {side.name} alone and not shown.")
    return _table(both, factors, [side.name for side in sides], metric), notes


def _in_order(cells: pd.DataFrame, factors: Sequence[Factor]) -> pd.DataFrame:
    """The cells by dataset, then by level in the order of each factor and not of the alphabet."""
    ranks = cells[["dimensions", "dataset"]].copy()
    for factor in factors:
        ranks[factor.name] = cells[factor.name].map(factor.rank)
    order = ranks.sort_values(list(map(str, ranks))).index
    return cells.loc[order].reset_index(drop=True)


def _nothing_in_common(sides: Sequence[Side], factors: Sequence[Factor]) -> str:
    """Say why no cell is in both runs: no dataset, or a factor of which they share no value."""
    first, second = sides
    names = f"{first.name} and {second.name}"
    shared = set(first.trials["dataset"]) & set(second.trials["dataset"])
    if not shared:
        return f"{names} have no dataset in common: nothing to compare"
    said = []
    for factor in factors:
        one = first.trials[factor.name].astype(str).unique()
        other = second.trials[factor.name].astype(str).unique()
        if not set(one) & set(other):
            said.append(f"{factor.label} {', '.join(one)} in {first.name}, {', '.join(other)} in {second.name}")
    in_both = first.trials[first.trials["dataset"].isin(shared)].sort_values("dataset", kind="stable")
    labels = in_both.drop_duplicates("dataset")["dataset_label"]
    both = f"{names} have {', '.join(labels)} in common"
    if said:
        return f"{both}, but nothing to compare there: {'; '.join(said)}. Compare runs that share a value of each"
    combined = " and ".join(map(field_label, _names(factors)))
    return f"{both}, but no combination of {combined}: nothing to compare"


def _test_cells(
    cells: pd.DataFrame, sides: Sequence[Side], metric: Metric, resamples: int
) -> tuple[pd.DataFrame, list[str]]:
    """Test each cell; return low, high, p in the order of `cells`, and why a cell could not be tested."""
    usable = []
    notes: list[str] = []
    for side in sides:
        found, problems = usable_predictions(side.trials)
        usable.append(found)
        notes += map(str, problems)
    rows = []
    for key in cells.to_dict("records"):
        first, second = [_rows_of(trials, key) for trials in usable]
        low = high = p = float("nan")
        try:
            if len(first) and len(second):
                gap = _difference(first, second, metric, resamples)
                low, high, p = gap.low, gap.high, gap.p
        except MisalignedError:
            notes.append(f"{key['dataset_label']}: the two runs hold different test images; not tested.")
        rows.append((low, high, p))
    return pd.DataFrame(rows, columns=["low", "high", "p"]), list(dict.fromkeys(notes))


def _rows_of(trials: pd.DataFrame, key: dict[Hashable, Any]) -> pd.DataFrame:
    """The trials of the cell with this key."""
    return trials[(trials[list(key)] == pd.Series(key)).all(axis=1)]


def _difference(first: pd.DataFrame, second: pd.DataFrame, metric: Metric, resamples: int) -> Interval:
    """How much the second run's trials of a cell score above the first's. Raises MisalignedError."""
    one, other = load_stack(first, "test"), load_stack(second, "test")
    require_same_images(other, one)
    task = find_task(first["task"].iloc[0])
    # The same draws for both, which pairs them by image.
    draws = Draws(task.strata(one.label), resamples, groups=one.group)
    scores_of_second = measure_level(other, task, metric, draws)
    scores_of_first = measure_level(one, task, metric, draws)
    return difference_interval(scores_of_second, scores_of_first)


def _describe_recipes(cells: pd.DataFrame, sides: Sequence[Side]) -> list[str]:
    """Say in which fields the trials of the common cells differ between the runs."""
    first, second = sides
    of_first = first.trials.merge(cells, on=list(cells.columns))
    of_second = second.trials.merge(cells, on=list(cells.columns))
    notes = []
    for name in CONFIG_COLUMNS:
        one, other = _listed_values(of_first[name]), _listed_values(of_second[name])
        if one != other:
            notes.append(f"{name}: {one} in {first.name}; {other} in {second.name}.")
    return notes or ["The recipes of the two runs are the same."]


def _listed_values(column: pd.Series) -> str:
    return ", ".join(sorted(set(map(str, column))))


def _table(both: pd.DataFrame, factors: Sequence[Factor], names: Sequence[str], metric: Metric) -> Table:
    labels = ["dataset_label", *_names(factors)]
    mean, spread = f"test_{metric.name}_mean", f"test_{metric.name}_std"
    rows: list[Row] = []
    for row in both.to_dict("records"):
        row_cells = (
            *text_cells(row[label] for label in labels),
            Cell(percent(row[f"{mean}_first"], row[f"{spread}_first"])),
            Cell(percent(row[f"{mean}_second"], row[f"{spread}_second"])),
            Cell(points(row["difference"]), best=row["p_holm"] < ALPHA),
            Cell(interval(row["low"], row["high"])),
            Cell(p_value(row["p_holm"])),
        )
        rows.append(row_cells)
    headings = [factor.heading for factor in factors]
    return Table(
        name="compare",
        title=f"{metric.heading} of {names[0]} and {names[1]}",
        columns=("Dataset", *headings, *names, "Difference", "95 % interval", "p (Holm)"),
        blocks=(tuple(rows),),
        labels=1 + len(factors),
        note=(
            "Percent on the test split, mean ± sample standard deviation over seeds; difference in"
            " percentage points, second run less first; its interval speaks of other test images and"
            " other seeds, where a run has one seed of other images alone, and then nothing is tested."
            " Bold: p < 0.05 after Holm's correction."
        ),
        data=both,
    )
