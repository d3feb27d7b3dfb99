"""What a search saw: each trial's score, the best so far, and how much each searched field matters."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from raypatch.analysis.load import Study
from raypatch.analysis.show.figures import Plot
from raypatch.analysis.show.panels import style_of
from raypatch.analysis.show.render import Cell, Table, significant
from raypatch.results import SweepRecord
from raypatch.search_settings import Search
from raypatch.selection import lower_is_better

LEAST_TRIALS = 8
"""Fewer trials in a group say nothing about the importance of its fields."""


def search_trials(study: Study) -> pd.DataFrame:
    """Return the trials of the study's searches that have a score, in the order in which each group drew them.

    Columns: those of `study.trials`, and group; number, from 1 within the group; metric; score, the metric of the best
    epoch on validation; best, the best score of the trials up to here that ran through, NaN before there is one.
    """
    parts = [_drawn(run, record, study.trials) for run, record in study.records.items() if record.search is not None]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _drawn(run: str, record: SweepRecord, trials: pd.DataFrame) -> pd.DataFrame:
    search = record.search
    assert search is not None
    rows = []
    counts = [0] * len(search.groups)
    for config in record.trials:
        index = search.group_of(config)
        assert index is not None, "sweep.json of a search holds its own trials only"
        counts[index] += 1
        place = {"run": run, "trial_id": config.trial_id(), "group": search.labels[index], "number": counts[index]}
        rows.append(place | {"metric": config.selection})
    drawn = pd.DataFrame(rows, columns=["run", "trial_id", "group", "number", "metric"])
    found = drawn.merge(trials[trials["status"] != "failed"], on=["run", "trial_id"])
    found["score"] = [row[row["metric"]] for _, row in found.iterrows()]
    finished = found["score"].where(found["status"] == "ok").groupby(found["group"])
    lower = lower_is_better(search.groups[0].selection)
    return found.assign(best=finished.transform(lambda score: (score.cummin() if lower else score.cummax()).ffill()))


def search_plots(study: Study) -> Iterator[Plot]:
    """Yield the plots of the study's searches: score against each searched number, and the history."""
    trials = search_trials(study)
    if trials.empty:
        return
    dots = (("ran through", *style_of(1)), ("stopped early", *style_of(2)))
    yield Plot(
        name="search_scores",
        title="Score against what was searched",
        caption="Validation score of each trial's best epoch. Trials that were stopped early had fewer epochs.",
        data=pd.concat(
            [_against(part, study.records[str(run)]) for run, part in trials.groupby("run")], ignore_index=True
        ),
        draw=draw_search_scores,
        lines=dots,
    )
    yield Plot(
        name="search_history",
        title="History of the search",
        caption="Validation scores in the order of drawing. The line is the best of the trials that ran through.",
        data=trials[["group", "number", "status", "score", "best", "metric"]].rename(columns={"group": "panel"}),
        draw=draw_search_history,
        lines=dots,
    )


def _against(trials: pd.DataFrame, record: SweepRecord) -> pd.DataFrame:
    assert record.search is not None
    fields = {name: field for name, field in record.search.settings.fields.items() if field.choice is None}
    parts = [
        trials[["status", "score", "metric"]].assign(
            panel=trials["group"] + (f", {name}" if len(fields) > 1 else ""),
            field=name,
            value=trials[name].astype(float),
            logarithmic=field.loguniform is not None,
        )
        for name, field in fields.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["panel"])


def draw_search_scores(axes: Axes, data: pd.DataFrame) -> None:
    """Points of score against value; stopped trials apart."""
    _draw_trials(axes, data, "value")
    if data["logarithmic"].iloc[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(str(data["field"].iloc[0]))


def draw_search_history(axes: Axes, data: pd.DataFrame) -> None:
    """Points of score by number, and the best so far as a line."""
    _draw_trials(axes, data, "number")
    axes.plot(data["number"], data["best"], color=style_of(1)[0], drawstyle="steps-post", linewidth=1)
    axes.set_xlabel("trial")


def _draw_trials(axes: Axes, data: pd.DataFrame, x: str) -> None:
    for status, place in (("ok", 1), ("pruned", 2)):
        part, (colour, marker) = data[data["status"] == status], style_of(place)
        axes.plot(part[x], part["score"], linestyle="", color=colour, marker=marker)
    axes.set_ylabel(str(data["metric"].iloc[0]))


def importance_table(study: Study) -> Table | None:
    """Return how much each searched field matters in each group; None where no group has enough trials and fields."""
    trials, rows, data = search_trials(study), [], []
    for (run, group), part in trials.groupby(["run", "group"], sort=False) if len(trials) else ():
        search = study.records[str(run)].search
        assert search is not None
        shares = field_importance(part, search)
        for field, share in shares.items():
            rows.append((Cell(str(group)), Cell(field), Cell(significant(share, 2))))
            data.append({"run": run, "group": group, "field": field, "importance": share})
    if not rows:
        return None
    title = "How much each searched field matters (PED-ANOVA, Watanabe et al. 2023; shares of 1)"
    columns = ("Group", "Field", "Importance")
    return Table(
        name="importance", title=title, columns=columns, blocks=(tuple(rows),), labels=2, data=pd.DataFrame(data)
    )


def field_importance(trials: pd.DataFrame, search: Search) -> dict[str, float]:
    """Return each searched field's share of what separates a group's good trials from the rest, largest first.

    Trials that were stopped early count with the score they had. Empty for one field or few trials.
    """
    import optuna

    fields = search.settings.fields
    trials = trials[np.isfinite(trials["score"])]
    if len(fields) < 2 or len(trials) < LEAST_TRIALS:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if lower_is_better(search.groups[0].selection) else "maximize")
    distributions = {name: field.to_optuna() for name, field in fields.items()}
    for _, row in trials.iterrows():
        values = {name: _plain(row[name]) for name in fields}
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=distributions, value=float(row["score"]))
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: share for name, share in found.items() if math.isfinite(share)}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
