"""Tables about trials: chosen hyperparameters, what is missing, where the numbers come from."""

from collections.abc import Iterable

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.search import field_importance, search_trials
from raypatch.analysis.frames.load import Results
from raypatch.analysis.show.tables.table import Cell, Row, Table, name_cells, text_cells
from raypatch.analysis.wording import capitalize, percent, significant
from raypatch.factors import field_heading, field_label


def choices_table(findings: Findings) -> Table | None:
    """Return the best configuration per series and level, where hyperparameters were tuned; else None."""
    if findings.recipes.empty:
        return None
    question, metric = findings.question, findings.metric
    data = _chosen_recipes(findings)
    named = ["dataset_label", *question.setting_keys, "level", *question.tuned]
    rows: list[Row] = []
    for row in data.to_dict("records"):
        names = name_cells(row[key] for key in named)
        scores = []
        for split in ("val", "test"):
            column = f"{split}_{metric.name}"
            scores.append(percent(row[f"{column}_mean"], row[f"{column}_std"]))
        rows.append(names + text_cells([row["tried"], row["seeds"], *scores]))
    tuned = map(field_heading, question.tuned)
    scored = (f"Validation {metric.heading}", f"Test {metric.heading}")
    names_of_row = ("Dataset", *question.setting_headings, findings.factor.heading, *tuned)
    return Table(
        name="choices",
        title=f"Best configuration per dataset and {findings.factor.label}",
        columns=(*names_of_row, "Tried", "Seeds", *scored),
        blocks=(tuple(rows),),
        labels=2 + len(question.settings),
        note="Chosen by the validation score that the trials name in “selection”, among those with the most seeds.",
        data=data,
    )


def _chosen_recipes(findings: Findings) -> pd.DataFrame:
    """The cells of the chosen recipes, with the values of these and how many recipes were tried."""
    keys, tuned = findings.question.cell, findings.question.tuned
    recipes = findings.recipes.groupby(keys, sort=False, dropna=False)
    tried = recipes.size().rename("tried").reset_index()
    # `selection` may have been tuned itself, and a frame must not have a column twice.
    columns = list(dict.fromkeys([*keys, "selection", *tuned]))
    first = findings.trials.drop_duplicates(keys)[columns]
    return findings.cells.merge(first, on=keys).merge(tried, on=keys)


def importance_table(results: Results) -> Table | None:
    """Return how much each searched field matters in each group; None where no group has enough trials and fields."""
    trials = search_trials(results)
    if trials.empty:
        return None
    rows, data = [], []
    for (run, group), part in trials.groupby(["run", "group"], sort=False):
        search = results.records[str(run)].search
        assert search is not None
        for field, share in field_importance(part, search).items():
            rows.append(text_cells([group, field_heading(field), significant(share, 2)]))
            data.append({"run": run, "group": group, "field": field, "importance": share})
    if not rows:
        return None
    return Table(
        name="importance",
        title="How much each searched field matters (PED-ANOVA, Watanabe et al. 2023; shares of 1)",
        columns=("Group", "Field", "Importance"),
        blocks=(tuple(rows),),
        labels=2,
        data=pd.DataFrame(data),
    )


def missing_table(results: Results) -> Table | None:
    """Return the planned trials without a result, a row per dataset, level and state; None where none is."""
    missing = results.missing
    if missing.empty:
        return None
    groups = missing.groupby(["run", "dataset_label", "level", "state"], sort=False)["seed"]
    shown = groups.agg(_listed).rename("seeds").reset_index()
    rows = map(text_cells, shown.itertuples(index=False))
    factors = ", ".join(field_label(factor.name) for factor in results.factors)
    return Table(
        name="missing",
        title=f"{len(missing)} planned trials without a result",
        columns=("Run", "Dataset", capitalize(factors), "State", "Seeds"),
        blocks=(tuple(rows),),
        labels=5,
        data=missing,
    )


def provenance_table(findings: Findings) -> Table:
    """Return versions, hardware, commits and seeds: a row per kind, a column per distinct state of the trials."""
    results = findings.results
    known = results.provenance.set_index("run").T
    rows: list[Row] = []
    for name, values in known.iterrows():
        rows.append(text_cells([name, *values]))
    # Seeds and commands belong to all states together, and stand in the first column.
    empty = (Cell(""),) * (known.shape[1] - 1)
    rows.append(text_cells(["seeds", _listed(findings.trials["seed"].unique())]) + empty)
    for run, record in results.records.items():
        rows.append(text_cells([f"command of {run}", " ".join(record.command)]) + empty)
    return Table(
        name="provenance",
        title="Versions, hardware and commits of the trials",
        columns=("Run", *map(str, known.columns)),
        blocks=(tuple(rows),),
        labels=1 + known.shape[1],
        data=results.provenance,
    )


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
