"""Two runs side by side: the cells that both have, what differs in the recipe, whether the scores differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from raypatch.analysis.answer.cells import DATASET_KEYS, ask, finished, select_recipes
from raypatch.analysis.answer.evidence import usable_predictions
from raypatch.analysis.answer.metrics import headline_metric
from raypatch.analysis.answer.summary import summarize
from raypatch.analysis.columns import CONFIG_COLUMNS
from raypatch.analysis.load import Results, load_study
from raypatch.analysis.show.tables.latex import to_latex
from raypatch.analysis.show.tables.table import Cell, Table, to_markdown, write_csv
from raypatch.analysis.statistics.draws import RESAMPLES, Draws, measure_level
from raypatch.analysis.statistics.inference import difference_interval
from raypatch.analysis.statistics.ranks import ALPHA, correct_holm
from raypatch.analysis.statistics.stacks import MisalignedError, load_stack, require_same_images
from raypatch.analysis.wording import interval, p_value, percent, points
from raypatch.analysis.written import Written
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

    out: default compare-SECOND/ in the first run's report folder. metric: default the first run's. Raises ValueError
    for an unknown metric, a folder that is no run folder, or runs without a finished trial in a common cell.
    """
    paths = [Path(first), Path(second)]
    results = [load_study(path) for path in paths]
    done = finished(results[0].trials)
    if done.empty:
        raise ValueError(f"{paths[0]} has no finished trial: nothing to compare")
    judged = headline_metric(done, metric or results[0].metric)
    factors = cell_factors(results)
    sides = [Side(_name(path), _chosen_trials(one, factors)) for path, one in zip(paths, results, strict=True)]
    table, notes = compare_sides(sides, factors, judged, resamples)
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
    return Written(folder, tuple(files), text)


def _name(path: Path) -> str:
    return path.resolve().name


def cell_factors(results: Sequence[Results]) -> list[Factor]:
    """Return what tells the cells of the runs apart beside the dataset: settings first, then what they compare.

    An axis of named levels that only one run has counts by the fields that its levels set.
    """
    shared = set.intersection(*({factor.name for factor in one.factors} for one in results))
    names: dict[str, None] = {}
    for one in results:
        settings = ask(one, one.factors[0]).settings
        names |= dict.fromkeys(setting.name for setting in settings if setting not in one.factors)
    for one in results:
        for factor in one.factors:
            is_known = factor.name in shared or factor.name in TrialConfig.model_fields
            names |= dict.fromkeys([factor.name] if is_known else sorted(factor.fields))
    return [_common_factor(name, results) for name in names]


def _common_factor(name: str, results: Sequence[Results]) -> Factor:
    """The factor with the levels of all runs."""
    if name in TrialConfig.model_fields:
        values = [value for one in results for value in finished(one.trials)[name].tolist()]
        return factor_of_field(name, [None if pd.isna(value) else value for value in values])
    levels = {level.name: level.fields for one in results for f in one.factors if f.name == name for level in f.levels}
    return factor_of_axis(name, levels)


def _chosen_trials(results: Results, factors: Sequence[Factor]) -> pd.DataFrame:
    """The trials of one recipe per series and level, with a column of text per factor of the cells."""
    if not (results.trials["status"] == "ok").any():
        return results.trials.iloc[:0].astype({"dimensions": int})
    kept = set(select_recipes(ask(results, results.factors[0]))["trial_id"])
    trials = results.trials[results.trials["trial_id"].isin(kept)]
    texts = {}
    for factor in factors:
        if factor.name not in TrialConfig.model_fields:
            texts[factor.name] = results.levels.loc[trials.index, factor.name]
            continue
        words = {level.fields[factor.name]: level.name for level in factor.levels}
        texts[factor.name] = [words[None if pd.isna(value) else value] for value in trials[factor.name]]
    return finished(trials).assign(**texts).sort_values(["dataset", "seed"], kind="stable")


def compare_sides(
    sides: Sequence[Side], factors: Sequence[Factor], metric: Metric, resamples: int = RESAMPLES
) -> tuple[Table, list[str]]:
    """Return the table of the cells that both have, and notes on what differs, is missing or could not be tested.

    The difference is second - first. Raises ValueError where there is no common cell.
    """
    keys = [*DATASET_KEYS, *(factor.name for factor in factors)]
    score = [f"test_{metric.name}_mean", f"test_{metric.name}_std"]
    cells = [summarize(side.trials, keys, [metric.name])[[*keys, "seeds", *score]] for side in sides]
    both = cells[0].merge(cells[1], on=keys, suffixes=("_first", "_second"))
    if both.empty:
        raise ValueError(_nothing_in_common(sides, factors))
    ranks = both[["dimensions", "dataset"]].assign(**{f.name: both[f.name].map(f.rank) for f in factors})
    both = both.loc[ranks.sort_values(list(map(str, ranks))).index].reset_index(drop=True)
    tests, notes = _test_cells(both[keys], sides, metric, resamples)
    both = both.join(tests)
    both["p_holm"] = correct_holm(both["p"])
    notes = [*_describe_recipes(both[keys], sides), *notes]
    for side, own in zip(sides, cells, strict=True):
        if len(own) > len(both):
            notes.append(f"{len(own) - len(both)} cells are in {side.name} alone and not shown.")
    return _table(both, factors, [side.name for side in sides], metric), notes


def _nothing_in_common(sides: Sequence[Side], factors: Sequence[Factor]) -> str:
    """Say why no cell is in both runs: no dataset, or a factor of which they share no value."""
    first, second = sides
    names = f"{first.name} and {second.name}"
    shared = set(first.trials["dataset"]) & set(second.trials["dataset"])
    if not shared:
        return f"{names} have no dataset in common: nothing to compare"
    said = []
    for factor in factors:
        own = [list(dict.fromkeys(side.trials[factor.name].astype(str))) for side in sides]
        if not set(own[0]) & set(own[1]):
            said.append(f"{factor.label} {', '.join(own[0])} in {first.name}, {', '.join(own[1])} in {second.name}")
    labels = [first.trials.loc[first.trials["dataset"] == name, "dataset_label"].iloc[0] for name in sorted(shared)]
    both = f"{names} have {', '.join(labels)} in common"
    if said:
        return f"{both}, but nothing to compare there: {'; '.join(said)}. Compare runs that share a value of each"
    combined = " and ".join(field_label(factor.name) for factor in factors)
    return f"{both}, but no combination of {combined}: nothing to compare"


def _test_cells(
    cells: pd.DataFrame, sides: Sequence[Side], metric: Metric, resamples: int
) -> tuple[pd.DataFrame, list[str]]:
    """Test each cell; return low, high, p in the order of `cells`, and why a cell could not be tested."""
    usable, notes = [], []
    for side in sides:
        found, problems = usable_predictions(side.trials)
        usable.append(found)
        notes += [str(problem) for problem in problems]
    rows = []
    for key in cells.to_dict("records"):
        parts = [own[(own[list(key)] == pd.Series(key)).all(axis=1)] for own in usable]
        row = {"low": float("nan"), "high": float("nan"), "p": float("nan")}
        if not any(part.empty for part in parts):
            one, other = (load_stack(part, "test") for part in parts)
            task = find_task(parts[0]["task"].iloc[0])
            try:
                require_same_images(other, one)
                draws = Draws(task.strata(one.label), resamples, groups=one.group)
                scores = [measure_level(stack, task, metric, draws) for stack in (other, one)]
                gap = difference_interval(*scores)
                row = {"low": gap.low, "high": gap.high, "p": gap.p}
            except MisalignedError:
                notes.append(f"{key['dataset_label']}: the two runs hold different test images; not tested.")
        rows.append(row)
    return pd.DataFrame(rows), list(dict.fromkeys(notes))


def _describe_recipes(cells: pd.DataFrame, sides: Sequence[Side]) -> list[str]:
    """Say in which fields the trials of the common cells differ between the runs."""
    common = [side.trials.merge(cells, on=list(cells.columns)) for side in sides]
    notes = []
    for name in CONFIG_COLUMNS:
        values = [sorted(set(map(str, own[name]))) for own in common]
        if values[0] != values[1]:
            shown = [f"{', '.join(own)} in {side.name}" for own, side in zip(values, sides, strict=True)]
            notes.append(f"{name}: {'; '.join(shown)}.")
    return notes or ["The recipes of the two runs are the same."]


def _table(both: pd.DataFrame, factors: Sequence[Factor], names: Sequence[str], metric: Metric) -> Table:
    rows = []
    for row in both.to_dict("records"):
        means = [row[f"test_{metric.name}_mean_{side}"] for side in ("first", "second")]
        spreads = [row[f"test_{metric.name}_std_{side}"] for side in ("first", "second")]
        scores = [Cell(percent(mean, spread)) for mean, spread in zip(means, spreads, strict=True)]
        rows.append(
            (
                *(Cell(str(row[name])) for name in ("dataset_label", *(factor.name for factor in factors))),
                *scores,
                Cell(points(means[1] - means[0]), best=row["p_holm"] < ALPHA),
                Cell(interval(row["low"], row["high"])),
                Cell(p_value(row["p_holm"])),
            )
        )
    headings = [factor.heading for factor in factors]
    return Table(
        name="compare",
        title=f"{metric.heading} of {names[0]} and {names[1]}",
        columns=("Dataset", *headings, *names, "Difference", "95 % interval", "p (Holm)"),
        blocks=(tuple(rows),),
        labels=1 + len(factors),
        note=(
            "Percent on the test split, mean ± sample standard deviation over seeds; difference in percentage points,"
            " second run less first; its interval speaks of other test images and other seeds, where a run has one seed"
            " of other images alone, and then nothing is tested. Bold: p < 0.05 after Holm's correction."
        ),
        data=both,
    )
