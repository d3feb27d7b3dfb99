"""Which trials may be averaged and which may be compared.

A cell is (dataset, patch size). Trials of one cell that differ in more than the seed are different recipes and are
never averaged. A series is what is compared over patch sizes: a dataset under one setting of the study's own factors
(image size, model, ...), the tuned hyperparameters chosen by validation in each cell.
"""

from collections.abc import Sequence

import pandas as pd

from raypatch.analysis.load import CONFIG_COLUMNS
from raypatch.selection import lower_is_better

TUNED_FIELDS = frozenset(
    {
        *("epochs", "batch_size", "optimizer", "lr", "weight_decay"),
        *("schedule", "step_epochs", "step_gamma", "warmup_epochs", "selection"),
    }
)
"""Hyperparameters, which validation may choose. All other fields are factors, which a study compares."""

DATASET_KEYS = ["dimensions", "dataset", "dataset_label"]
PAPER_MEMBERS = (1, 2, 4)


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that have test figures: status ok."""
    return trials[trials["status"] == "ok"].astype({"dimensions": int})  # a trial that did not finish has none: floats


def recipe_fields(trials: pd.DataFrame) -> list[str]:
    """Return the fields, besides the seed, that differ between trials of one cell."""
    candidates = [name for name in CONFIG_COLUMNS if name not in ("dataset", "patch_size", "seed")]
    distinct = trials.groupby(["dataset", "patch_size"])[candidates].nunique(dropna=False)
    return [name for name in candidates if (distinct[name] > 1).any()]


def factors(fields: Sequence[str]) -> list[str]:
    """Return those of the recipe's `fields` that a study compares rather than tunes."""
    return [name for name in fields if name not in TUNED_FIELDS]


def series_keys(fields: Sequence[str]) -> list[str]:
    """Return the columns that name a series."""
    return [*DATASET_KEYS, *factors(fields)]


def select_recipes(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the finished trials of one recipe per series and patch size: the one that validation prefers.

    Among the recipes with the most seeds, the best mean over seeds of the figure that the first trial's `selection`
    names: a recipe that was run with one lucky seed does not win over one that was run with three. Test figures are
    not looked at.
    """
    trials = finished(trials)
    fields = recipe_fields(trials)
    if not set(fields) & TUNED_FIELDS:
        return trials
    kept = [_preferred(cell, fields) for _, cell in trials.groupby([*series_keys(fields), "patch_size"], dropna=False)]
    return pd.concat(kept).sort_index()


def _preferred(cell: pd.DataFrame, fields: list[str]) -> pd.DataFrame:
    figure = cell["selection"].iloc[0]
    recipes = cell.groupby(fields, dropna=False)
    standing = recipes.agg(seeds=("seed", "nunique"), figure=(figure, "mean"))
    standing = standing.sort_values(["seeds", "figure"], ascending=[False, lower_is_better(figure)], na_position="last")
    best = standing.index[0]
    return recipes.get_group(best if isinstance(best, tuple) else (best,))


def default_members(patch_sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the patch sizes of the study's ensemble: 1, 2, 4, or the three smallest there are; fewer than two: none.

    Source of 1, 2, 4: arXiv 2602.18614.
    """
    known = sorted(set(patch_sizes))
    if set(PAPER_MEMBERS) <= set(known):
        return PAPER_MEMBERS
    return tuple(known[:3]) if len(known) > 1 else ()
