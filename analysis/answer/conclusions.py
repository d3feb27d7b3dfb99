"""The conclusion under one setting, or over several: which level, what it gains and costs, is the difference real.

Choices are made on the validation split; what they are worth is read from the test split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from raypatch.analysis.statistics.ranks import ALPHA, RankTest, compare_ranks, correct_holm
from raypatch.factors import Factor
from raypatch.selection import prefer_level
from raypatch.tasks import Metric

NEAR = 0.01
"""Levels this near to the best validation score count as good as it when a cheaper one is looked for."""


@dataclass(frozen=True)
class Answer:
    """One level for all `datasets`, which have all of `levels`.

    left_out: datasets and levels that lack one another, in words. baseline: the factor's, or the
    first of `levels`. chosen: the best mean validation score. frugal: the cheapest within a point
    of that. gain: mean, least and largest difference of chosen and baseline over the datasets,
    headline metric on the test split. better, worse: datasets where it is clearly so, with p < 0.05
    after Holm's correction over the `tested`. unclear: the other datasets that have a difference,
    with their seeds and how many would be needed to see it, NaN where that is not known. cost,
    seconds: GFLOPs and training time of chosen as multiples of baseline's. frugal_gain,
    frugal_cost, frugal_seconds: of frugal.
    """

    datasets: tuple[str, ...]
    levels: tuple[str, ...]
    left_out: tuple[str, ...]
    baseline: str
    chosen: str
    frugal: str
    gain: tuple[float, float, float]
    better: int
    worse: int
    tested: int
    unclear: tuple[tuple[str, float, float], ...]
    cost: float
    seconds: float
    frugal_gain: float
    frugal_cost: float
    frugal_seconds: float


@dataclass(frozen=True)
class Conclusion:
    """What holds for datasets that are answered together: of the same dimensions, under one setting or over several.

    label: for people, `2D` or `3D, linear probe`. dimensions: 2 or 3. setting: what the columns of
    the setting hold, empty over several. averaged: the settings in words whose mean this is about.
    cells: means by dataset and level. gains: as `compare_with_baseline`, one row per dataset, with
    p_holm. answer: one level for all datasets, None where they have no two levels in common. ranks:
    tests across datasets, None where there are not two datasets with every level, or not two
    levels.
    """

    label: str
    dimensions: int
    setting: dict[str, str]
    averaged: tuple[str, ...]
    cells: pd.DataFrame
    gains: pd.DataFrame
    answer: Answer | None
    ranks: RankTest | None


def baseline_of(factor: Factor, present: Sequence[str]) -> str:
    """Return the factor's baseline where it is among the levels that are present, else the first of these."""
    if factor.baseline in present:
        return factor.baseline
    return min(present, key=factor.rank)


def prefer(score: pd.Series, cost: pd.Series, metric: Metric) -> str:
    """Return the level of the best score, by `prefer_level`, which `raypatch predict` goes by too."""
    scores: dict[str, float] = {}
    costs: dict[str, float] = {}
    for level in score.index:
        scores[str(level)] = float(score[level])
        costs[str(level)] = float(cost[level])
    return prefer_level(scores, costs, lower_is_better=metric.lower_is_better)


def compare_with_baseline(
    cells: pd.DataFrame, differences: pd.DataFrame, keys: Sequence[str], factor: Factor, metric: Metric
) -> pd.DataFrame:
    """Return one row per series: its baseline against the level that validation prefers, headline metric.

    cells: of single models. Columns: `keys`, baseline, baseline_score, chosen, chosen_score, gain,
    low, high, p (of the gain), seeds (of the level with fewer), needed (to see the gain), cost and
    seconds (chosen as a multiple of baseline), best and best_gain (the best level on the test
    split: not a choice one could have made, but what papers report).
    """
    validation, test = f"val_{metric.name}_mean", f"test_{metric.name}_mean"
    rows = []
    for key, block in cells.groupby(list(keys), sort=False, dropna=False):
        levels = block.set_index("level")
        baseline = levels.loc[baseline_of(factor, list(levels.index))]
        chosen = levels.loc[prefer(levels[validation], levels["gflops_mean"], metric)]
        best = levels.loc[prefer(levels[test], levels["gflops_mean"], metric)]
        row: dict[str, object] = dict(zip(keys, key, strict=True))
        row["baseline"], row["baseline_score"] = baseline.name, baseline[test]
        row["chosen"], row["chosen_score"] = chosen.name, chosen[test]
        row["gain"] = chosen[test] - baseline[test]
        row["cost"] = chosen["gflops_mean"] / baseline["gflops_mean"]
        row["seconds"] = as_multiple(chosen["train_seconds_mean"], baseline["train_seconds_mean"])
        row["best"], row["best_gain"] = best.name, best[test] - baseline[test]
        rows.append(row)
    # A left join: a series whose predictions could not be used has a gain all the same, and no test.
    tested = differences.rename(columns={"level": "chosen"}).drop(columns="estimate")
    gains = pd.DataFrame(rows).merge(tested, how="left", on=[*keys, "chosen", "baseline"])
    return gains.assign(p_holm=correct_holm(gains["p"]))


def as_multiple(cost: Any, of: Any) -> float:
    """Return a cost as a multiple of another, both numbers; NaN where that is nothing, as neighbours' training time."""
    return float(cost / of) if of else math.nan


def rank_levels(cells: pd.DataFrame, factor: Factor, metric: Metric) -> RankTest | None:
    """Return the tests across datasets; None for too few datasets or levels, which the report says."""
    scores = scores_by_level(cells, f"test_{metric.name}_mean", factor)
    good = -scores if metric.lower_is_better else scores
    try:
        return compare_ranks(good)
    except ValueError:
        return None


def find_answer(cells: pd.DataFrame, differences: pd.DataFrame, factor: Factor, metric: Metric) -> Answer | None:
    """Choose one level by its mean validation score over the datasets that have every level.

    Where no dataset has every level: among the levels that all datasets have. None where these are
    not two.
    """
    validation = scores_by_level(cells, f"val_{metric.name}_mean", factor)
    complete = validation.dropna()
    if complete.empty:
        complete = validation.dropna(axis=1)
    if complete.empty or complete.shape[1] < 2:
        return None

    def common(column: str) -> pd.DataFrame:
        return scores_by_level(cells, column, factor).loc[complete.index, complete.columns]

    test = common(f"test_{metric.name}_mean")
    seconds = common("train_seconds_mean")
    cost = common("gflops_mean").mean()
    baseline = baseline_of(factor, list(complete.columns))
    chosen = prefer(complete.mean(), cost, metric)
    # Levels of one model, such as learning rates, cost the same GFLOPs: time tells them apart.
    spent = cost if cost.nunique() > 1 else seconds.sum()
    frugal = _cheapest_near(complete.mean(), spent, chosen, metric)
    gain = test[chosen] - test[baseline]
    tests = differences[(differences["level"] == chosen) & (differences["baseline"] == baseline)]
    tests = tests[tests["dataset_label"].isin(complete.index)]
    # Where nothing was tested p is NaN, which is not below any threshold.
    is_clear = correct_holm(tests["p"]) < ALPHA
    clear = tests["estimate"][is_clear]
    if metric.lower_is_better:
        clear = -clear
    unclear = tests.loc[~is_clear, ["dataset_label", "seeds", "needed"]]
    return Answer(
        datasets=tuple(complete.index),
        levels=tuple(complete.columns),
        left_out=_left_out(validation, complete, factor),
        baseline=baseline,
        chosen=chosen,
        frugal=frugal,
        gain=(float(gain.mean()), float(gain.min()), float(gain.max())),
        better=int((clear > 0).sum()),
        worse=int((clear < 0).sum()),
        tested=int(tests["p"].notna().sum()),
        unclear=tuple(unclear.itertuples(index=False, name=None)),
        cost=float(cost[chosen] / cost[baseline]),
        seconds=as_multiple(seconds[chosen].sum(), seconds[baseline].sum()),
        frugal_gain=float((test[frugal] - test[baseline]).mean()),
        frugal_cost=float(cost[frugal] / cost[baseline]),
        frugal_seconds=as_multiple(seconds[frugal].sum(), seconds[baseline].sum()),
    )


def _cheapest_near(score: pd.Series, cost: pd.Series, chosen: str, metric: Metric) -> str:
    """The cheapest level within a point of the chosen one on validation."""
    least, most = score[chosen] - NEAR, score[chosen] + NEAR
    is_near = score <= most if metric.lower_is_better else score >= least
    known = cost[is_near].dropna()
    return str(known.idxmin()) if len(known) else chosen


def _left_out(validation: pd.DataFrame, complete: pd.DataFrame, factor: Factor) -> tuple[str, ...]:
    """Say which datasets and which levels the answer is not about."""
    said = []
    for dataset in validation.index.difference(complete.index, sort=False):
        scores = validation.loc[dataset]
        lacking = ", ".join(map(factor.phrase, scores.index[scores.isna()]))
        said.append(f"{dataset} (no result for {lacking})")
    for level in validation.columns.difference(complete.columns, sort=False):
        said.append(f"{factor.phrase(level)} (not in all datasets)")
    return tuple(said)


def scores_by_level(cells: pd.DataFrame, column: str, factor: Factor) -> pd.DataFrame:
    """Return a column of the cells by dataset (rows, sorted by name) and level (columns, in order)."""
    wide = cells.pivot(index="dataset_label", columns="level", values=column)
    ordered = sorted(map(str, wide.columns), key=factor.rank)
    return wide[ordered]
