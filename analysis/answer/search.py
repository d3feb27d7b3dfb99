"""What a search saw: each trial's score, the best so far, and how much each searched field matters."""

import math
from typing import Any

import numpy as np
import pandas as pd

from raypatch.analysis.frames.load import Results
from raypatch.results import SweepRecord
from raypatch.search_settings import Search
from raypatch.selection import lower_is_better

LEAST_TRIALS = 8
"""Fewer trials in a group say nothing about the importance of its fields."""


def search_trials(results: Results) -> pd.DataFrame:
    """Return the trials of the runs' searches that have a score, in the order in which each group drew them.

    Columns: those of `results.trials`, and group; number, from 1 within the group; drawn, value by
    searched field; metric; score, the metric of the best epoch on validation; best, the best score
    of the trials up to here that ran through, NaN before there is one.
    """
    parts = []
    for run, record in results.records.items():
        if record.search is not None:
            parts.append(_drawn(run, record, record.search, results.trials))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _drawn(run: str, record: SweepRecord, search: Search, trials: pd.DataFrame) -> pd.DataFrame:
    rows = []
    counts = [0] * len(search.groups)
    for config in record.trials:
        index = search.group_of(config)
        assert index is not None, "sweep.json of a search holds its own trials only"
        counts[index] += 1
        drawn = search.drawn_values(config)
        rows.append((run, config.trial_id(), search.labels[index], counts[index], drawn, config.selection))
    planned = pd.DataFrame(rows, columns=["run", "trial_id", "group", "number", "drawn", "metric"])
    found = planned.merge(trials[trials["status"] != "failed"], on=["run", "trial_id"])
    found["score"] = [row[row["metric"]] for _, row in found.iterrows()]
    # A trial that was stopped early has no final score, but keeps its place in the history.
    finished = found["score"].where(found["status"] == "ok")
    by_group = finished.groupby(found["group"])
    best = by_group.cummin() if lower_is_better(search.groups[0].selection) else by_group.cummax()
    found["best"] = best.groupby(found["group"]).ffill()
    return found


def field_importance(trials: pd.DataFrame, search: Search) -> dict[str, float]:
    """Return each searched field's share of what separates a group's good trials from the rest, largest first.

    Trials that were stopped early count with the score they had. Empty for one field or few trials.
    """
    # Here, because it takes half a second, and most reports have no search.
    import optuna

    fields = search.settings.fields
    trials = trials[np.isfinite(trials["score"])]
    if len(fields) < 2 or len(trials) < LEAST_TRIALS:
        return {}
    # At its default Optuna reports each study that it makes.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lower = lower_is_better(search.groups[0].selection)
    study = optuna.create_study(direction="minimize" if lower else "maximize")
    distributions = {name: field.to_optuna() for name, field in fields.items()}
    for drawn, score in zip(trials["drawn"], trials["score"], strict=True):
        values = {name: _plain(drawn[name]) for name in fields}
        trial = optuna.trial.create_trial(params=values, distributions=distributions, value=float(score))
        study.add_trial(trial)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    # A field without influence on trials that are all alike has no share: 0 of 0.
    return {name: share for name, share in found.items() if math.isfinite(share)}


def _plain(value: Any) -> Any:
    """The value as Python's own; Optuna refuses numpy's."""
    return value.item() if isinstance(value, np.generic) else value
