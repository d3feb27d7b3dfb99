"""One factor asked of trials: which of these may be averaged, and which may be compared.

A cell is what only the seed varies in: a dataset at one level, under one setting, with one recipe. Trials of different
recipes are never averaged. A series is what is compared over the levels: a dataset under one setting. Settings are
what the other factors, and all else that varies and is no hyperparameter, are at; hyperparameters validation chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from raypatch.analysis.columns import CONFIG_COLUMNS
from raypatch.analysis.load import Results
from raypatch.config import field_facts
from raypatch.factors import Factor, factor_of_field
from raypatch.selection import lower_is_better

DATASET_KEYS = ["dimensions", "dataset", "dataset_label"]
SINGLE, ENSEMBLE = "single", "ensemble"


@dataclass(frozen=True)
class Question:
    """One factor asked of finished trials.

    settings: what else varies, one factor each; in `trials` a column of its name holds the level, as text. tuned: the
    hyperparameters that differ within a cell's trials. trials: finished, with level, level_rank and kind of `factor`;
    ordered by dataset, setting, level and seed, so that groups in order of appearance are in the right order.
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
        return ", ".join(setting.phrase(str(row[setting.name])) for setting in self.settings)


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that have test scores: status ok."""
    return trials[trials["status"] == "ok"].astype({"dimensions": int})  # a trial that did not finish has none: floats


def ask(results: Results, factor: Factor) -> Question:
    """Return the question about one of the factors of `results`."""
    levels = results.levels
    done = results.trials["status"] == "ok"
    named = [other for other in results.factors if other is not factor and levels.loc[done, other.name].nunique() > 1]
    trials = results.trials.assign(level=levels[factor.name])
    trials["level_rank"] = trials["level"].map(factor.rank).astype(int)
    trials = finished(trials)
    settings = list(named)
    covered = {field for other in results.factors for field in other.fields}
    raw = trials.assign(**{other.name: levels.loc[trials.index, other.name] for other in named})
    cell = ["dataset", "level", *(other.name for other in named)]
    for field in varied_fields(raw, cell):
        if field_facts(field).role == "factor" and field not in covered:
            found = factor_of_field(field, _plain_values(raw[field]))
            words = {level.fields[field]: level.name for level in found.levels}
            raw[field] = [words[value] for value in _plain_values(raw[field])]
            settings.append(found)
    cell = ["dataset", "level", *(setting.name for setting in settings)]
    tuned = [field for field in varied_fields(raw, cell) if field_facts(field).role == "hyperparameter"]
    question = Question(factor, tuple(settings), tuple(tuned), raw)
    return replace(question, trials=_in_order(question))


def _in_order(question: Question) -> pd.DataFrame:
    """The trials by dataset, setting, level and seed, each in its own order."""
    trials = question.trials
    ranks = pd.DataFrame({"dimensions": trials["dimensions"], "dataset": trials["dataset"]})
    for setting in question.settings:
        ranks[setting.name] = trials[setting.name].map(setting.rank)
    keys = [*ranks.columns, "level_rank", "seed", "trial_id"]
    ranks = ranks.join(trials[["level_rank", "seed", "trial_id"]])
    return trials.loc[ranks.sort_values(keys).index].reset_index(drop=True)


def _plain_values(column: pd.Series) -> list[object]:
    """The values as a trial has them: None where pandas has no value."""
    return [None if value is None or value is pd.NA or value != value else value for value in column.tolist()]


def varied_fields(trials: pd.DataFrame, cell: Sequence[str]) -> list[str]:
    """Return the fields of a trial, but dataset and seed, that differ between trials that agree in `cell`."""
    candidates = [name for name in CONFIG_COLUMNS if name not in ("dataset", "seed", *cell)]
    distinct = trials.groupby(list(cell), dropna=False)[candidates].nunique(dropna=False)
    return [name for name in candidates if (distinct[name] > 1).any()]


def select_recipes(question: Question) -> pd.DataFrame:
    """Return the trials of one recipe per series and level: the one that validation prefers.

    Among the recipes with the most seeds, the best mean over seeds of the score that the first trial's `selection`
    names: a recipe that was run with one lucky seed does not win over one that was run with three. Test scores are
    not looked at.
    """
    trials = question.trials
    if not question.tuned:
        return trials
    cells = trials.groupby(question.cell, sort=False, dropna=False)
    kept = [_preferred_recipe(cell, list(question.tuned)) for _, cell in cells]
    return pd.concat(kept).sort_index()


def _preferred_recipe(cell: pd.DataFrame, tuned: list[str]) -> pd.DataFrame:
    score = cell["selection"].iloc[0]
    recipes = cell.groupby(tuned, dropna=False)
    standing = recipes.agg(seeds=("seed", "nunique"), score=(score, "mean"))
    standing = standing.sort_values(["seeds", "score"], ascending=[False, lower_is_better(score)], na_position="last")
    best = standing.index[0]
    return recipes.get_group(best if isinstance(best, tuple) else (best,))
