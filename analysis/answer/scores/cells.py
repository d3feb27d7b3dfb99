"""One factor asked of trials: which of these may be averaged, and which may be compared.

A cell is what only the seed varies in: a dataset at one level, under one setting, with one recipe.
Trials of different recipes are never averaged. A series is what is compared over the levels: a
dataset under one setting. Settings are what the other factors, and all else that varies and is no
hyperparameter, are at; hyperparameters validation chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from raypatch.analysis.frames.columns import CONFIG_COLUMNS
from raypatch.analysis.frames.load import Results
from raypatch.config import field_facts
from raypatch.factors import Factor, factor_of_field
from raypatch.selection import lower_is_better

DATASET_KEYS = ["dimensions", "dataset", "dataset_label"]
SINGLE, ENSEMBLE = "single", "ensemble"


@dataclass(frozen=True)
class Question:
    """One factor asked of finished trials.

    settings: what else varies, one factor each; in `trials` a column of its name holds the level,
    as text. tuned: the hyperparameters that differ within a cell's trials. trials: finished, with
    level, level_rank and kind of `factor`; ordered by dataset, setting, level and seed, so that
    groups in order of appearance are in the right order.
    """

    factor: Factor
    settings: tuple[Factor, ...]
    tuned: tuple[str, ...]
    trials: pd.DataFrame

    @property
    def setting_keys(self) -> list[str]:
        """The columns that name a setting."""
        return [setting.name for setting in self.settings]

    @property
    def setting_headings(self) -> list[str]:
        """What stands above the columns that name a setting."""
        return [setting.heading for setting in self.settings]

    @property
    def series(self) -> list[str]:
        """The columns that name a series."""
        return [*DATASET_KEYS, *self.setting_keys]

    @property
    def cell(self) -> list[str]:
        """The columns that name a cell, apart from its recipe."""
        return [*self.series, "level"]

    def name_setting(self, row: Mapping[Any, Any]) -> str:
        """Return the setting of a row in words: vit_tiny, patch size 4; empty where nothing else varies."""
        phrases = [setting.phrase(str(row[setting.name])) for setting in self.settings]
        return ", ".join(phrases)


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that have test scores: status ok."""
    done = trials[trials["status"] == "ok"]
    # A trial that did not finish has no dimensions, and pandas makes floats of the others'.
    return done.astype({"dimensions": int})


def ask(results: Results, factor: Factor) -> Question:
    """Return the question about one of the factors of `results`."""
    trials = finished(results.trials)
    levels = results.levels.loc[trials.index]
    trials["level"] = levels[factor.name]
    trials["level_rank"] = trials["level"].map(factor.rank).astype(int)
    settings: list[Factor] = []
    for other in results.factors:
        if other is not factor and levels[other.name].nunique() > 1:
            trials[other.name] = levels[other.name]
            settings.append(other)
    # A field that a compared factor sets differs because of that factor, and is no setting of its own.
    covered = set().union(*(other.fields for other in results.factors))
    for field in varied_fields(trials, _cell_keys(settings)):
        if field_facts(field).role == "factor" and field not in covered:
            setting = factor_of_field(field, plain_values(trials[field]))
            trials[field] = level_names(trials[field], setting)
            settings.append(setting)
    varied = varied_fields(trials, _cell_keys(settings))
    tuned = [field for field in varied if field_facts(field).role == "hyperparameter"]
    question = Question(factor, tuple(settings), tuple(tuned), trials)
    return replace(question, trials=_in_order(question))


def _cell_keys(settings: Sequence[Factor]) -> list[str]:
    return ["dataset", "level", *(setting.name for setting in settings)]


def _in_order(question: Question) -> pd.DataFrame:
    """The trials by dataset, setting, level and seed, each in its own order."""
    trials = question.trials
    ranks = pd.DataFrame({"dimensions": trials["dimensions"], "dataset": trials["dataset"]})
    for setting in question.settings:
        ranks[setting.name] = trials[setting.name].map(setting.rank)
    keys = [*ranks.columns, "level_rank", "seed", "trial_id"]
    ranks = ranks.join(trials[["level_rank", "seed", "trial_id"]])
    return trials.loc[ranks.sort_values(keys).index].reset_index(drop=True)


def plain_values(column: pd.Series) -> list[object]:
    """Return the values as a trial has them: None where pandas has no value."""
    return column.astype(object).where(column.notna(), None).tolist()


def level_names(column: pd.Series, factor: Factor) -> list[str]:
    """Return the name of the level of each value in the column of a field; factor: that of the field."""
    names = {level.fields[factor.name]: level.name for level in factor.levels}
    return [names[value] for value in plain_values(column)]


def varied_fields(trials: pd.DataFrame, cell: Sequence[str]) -> list[str]:
    """Return the fields of a trial, but dataset and seed, that differ between trials that agree in `cell`."""
    candidates = [name for name in CONFIG_COLUMNS if name not in ("dataset", "seed", *cell)]
    distinct = trials.groupby(list(cell), dropna=False)[candidates].nunique(dropna=False)
    return [name for name in candidates if (distinct[name] > 1).any()]


def select_recipes(question: Question) -> pd.DataFrame:
    """Return the trials of one recipe per series and level: the one that validation prefers.

    Among the recipes with the most seeds, the best mean over seeds of the score that the first
    trial's `selection` names: a recipe that was run with one lucky seed does not win over one that
    was run with three. Test scores are not looked at.
    """
    trials = question.trials
    if not question.tuned:
        return trials
    kept = []
    for _, cell in trials.groupby(question.cell, sort=False, dropna=False):
        kept.append(_preferred_recipe(cell, list(question.tuned)))
    return pd.concat(kept).sort_index()


def _preferred_recipe(cell: pd.DataFrame, tuned: list[str]) -> pd.DataFrame:
    score = cell["selection"].iloc[0]
    recipes = cell.groupby(tuned, dropna=False)
    standing = recipes.agg(seeds=("seed", "nunique"), score=(score, "mean"))
    rising = [False, lower_is_better(score)]
    standing = standing.sort_values(["seeds", "score"], ascending=rising, na_position="last")
    best = standing.index[0]
    # With one tuned field the index holds plain values, and get_group still wants a tuple.
    return recipes.get_group(best if isinstance(best, tuple) else (best,))
