"""Tables about trials: chosen hyperparameters, what is missing, where the numbers come from."""

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.search import field_importance, search_trials
from raypatch.analysis.load import Results
from raypatch.analysis.show.tables.scores import name_cell
from raypatch.analysis.show.tables.table import Cell, Table
from raypatch.analysis.wording import percent, significant
from raypatch.factors import field_heading, field_label


def choices_table(findings: Findings) -> Table | None:
    """Return the best configuration per series and level, where hyperparameters were tuned; else None."""
    if findings.recipes.empty:
        return None
    question, metric = findings.question, findings.metric
    keys, tuned = question.cell, list(question.tuned)
    tried = findings.recipes.groupby(keys, sort=False, dropna=False).size().rename("tried").reset_index()
    first = findings.trials.drop_duplicates(keys)[list(dict.fromkeys([*keys, "selection", *tuned]))]
    data = findings.cells.merge(first, on=keys).merge(tried, on=keys)
    rows = []
    for row in data.to_dict("records"):
        names = [row[key] for key in ("dataset_label", *question.setting_keys, "level")]
        counts = [str(row["tried"]), str(row["seeds"])]
        scores = []
        for split in ("val", "test"):
            column = f"{split}_{metric.name}"
            scores.append(Cell(percent(row[f"{column}_mean"], row[f"{column}_std"])))
        rows.append((*map(name_cell, [*names, *(row[field] for field in tuned)]), *map(Cell, counts), *scores))
    settings = [setting.heading for setting in question.settings]
    headings = (*(field_heading(field) for field in tuned), "Tried", "Seeds")
    scored = (f"Validation {metric.heading}", f"Test {metric.heading}")
    return Table(
        name="choices",
        title=f"Best configuration per dataset and {findings.factor.label}",
        columns=("Dataset", *settings, findings.factor.heading, *headings, *scored),
        blocks=(tuple(rows),),
        labels=2 + len(settings),
        note="Chosen by the validation score that the trials name in “selection”, among those with the most seeds.",
        data=data,
    )


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
            rows.append((Cell(str(group)), Cell(field_heading(field)), Cell(significant(share, 2))))
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
    shown = groups.agg(lambda seeds: ", ".join(map(str, sorted(seeds)))).rename("seeds").reset_index()
    level = ", ".join(field_label(factor.name) for factor in results.factors)
    return Table(
        name="missing",
        title=f"{len(missing)} planned trials without a result",
        columns=("Run", "Dataset", f"{level[:1].upper()}{level[1:]}", "State", "Seeds"),
        blocks=(tuple(tuple(Cell(str(value)) for value in row) for row in shown.itertuples(index=False)),),
        labels=5,
        data=missing,
    )


def provenance_table(findings: Findings) -> Table:
    """Return versions, hardware, commits and seeds: a row per kind, a column per distinct state of the trials."""
    results = findings.results
    known = results.provenance.set_index("run").T
    empty = [Cell("") for _ in range(known.shape[1] - 1)]
    rows = []
    for name, values in known.iterrows():
        rows.append((Cell(str(name)), *(Cell(str(value)) for value in values)))
    seeds = ", ".join(map(str, sorted(set(findings.trials["seed"]))))
    rows.append((Cell("seeds"), Cell(seeds), *empty))
    for run, record in results.records.items():
        rows.append((Cell(f"command of {run}"), Cell(" ".join(record.command)), *empty))
    return Table(
        name="provenance",
        title="Versions, hardware and commits of the trials",
        columns=("Run", *map(str, known.columns)),
        blocks=(tuple(rows),),
        labels=1 + known.shape[1],
        data=results.provenance,
    )
