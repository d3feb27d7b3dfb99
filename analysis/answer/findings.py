"""The conclusions of a study, as numbers: which patch size, what it gains, what it costs, is the difference real.

Choices are made on the validation split; what they are worth is read from the test split.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from raypatch.analysis.answer.cells import factors, finished, recipe_fields, select_recipes, series_keys
from raypatch.analysis.answer.evidence import EVIDENCE_COLUMNS, Evidence, examine_series, join_rows, usable_predictions
from raypatch.analysis.load import HEADLINE, METRICS, Problem, Study
from raypatch.analysis.show.tables import summarize, summarize_cells
from raypatch.analysis.statistics.ensembles import patch_ensembles, score_ensembles
from raypatch.analysis.statistics.ranks import ALPHA, RankTest, compare_ranks, correct_holm
from raypatch.analysis.statistics.resampling import RESAMPLES

NEAR = 0.01
"""Patch sizes this near to the best validation score count as good as it when a cheaper one is looked for."""


@dataclass(frozen=True)
class Setting:
    """Datasets that are answered together: of the same dimensions, under the same factors of the study.

    label: for people, `2D` or `3D, method=linear_probe`. gains: as `compare_with_largest`, one row per dataset, with
    p_holm. answer: one patch size for all datasets, None where they have no two patch sizes in common. ranks: tests
    across datasets, None where there are not two datasets with every patch size, or not two patch sizes.
    """

    label: str
    gains: pd.DataFrame
    answer: "Answer | None"
    ranks: RankTest | None


@dataclass(frozen=True)
class Answer:
    """One patch size for all `datasets`, which have all of `sizes`.

    baseline: the largest. chosen: the best mean validation score. frugal: the cheapest within a point of that.
    gain: mean, least and largest difference of chosen and baseline over the datasets, headline metric on the test
    split. better, worse: datasets where it is above or below 0 with p < 0.05 after Holm's correction over the `tested`.
    cost, seconds: GFLOPs and training time of chosen as multiples of baseline's. frugal_gain, frugal_cost: of frugal.
    """

    datasets: tuple[str, ...]
    sizes: tuple[int, ...]
    baseline: int
    chosen: int
    frugal: int
    gain: tuple[float, float, float]
    better: int
    worse: int
    tested: int
    cost: float
    seconds: float
    frugal_gain: float
    frugal_cost: float


@dataclass(frozen=True)
class Findings:
    """All that a report shows.

    trials: finished, one recipe per series and patch size. fields: what differs besides dataset, patch size, seed.
    cells: `summarize_cells` with test_<metric>_low and _high, the default ensemble beneath. recipes: the same of
    every recipe, where hyperparameters were tuned, else empty. ensembles: `summarize` by rule and patch; the rule
    `seeds` is the mean over the seeds of one patch size. evidence: of all series, with their keys as columns.
    settings: the answers. problems: what could not be used.
    """

    study: Study
    trials: pd.DataFrame
    fields: tuple[str, ...]
    cells: pd.DataFrame
    recipes: pd.DataFrame
    ensembles: pd.DataFrame
    evidence: Evidence
    settings: tuple[Setting, ...]
    problems: tuple[Problem, ...]


def conclude(study: Study, resamples: int = RESAMPLES) -> Findings:
    """Draw the conclusions of a study. Raises ValueError where it has no finished trial."""
    trials = select_recipes(study.trials)
    if trials.empty:
        raise ValueError("no finished trial: there is nothing to conclude")
    varied = recipe_fields(finished(study.trials))
    keys = series_keys(varied)
    usable, problems = usable_predictions(trials)
    evidence = _examine(usable, keys, resamples)
    cells = _add_intervals(summarize_cells(trials, patch_ensembles(usable)), evidence.intervals, keys)
    singles = cells[cells["patch_size"] > 0]
    gains = compare_with_largest(singles, evidence.differences, keys)
    return Findings(
        study=study,
        trials=trials,
        fields=tuple(varied),
        cells=cells,
        recipes=summarize_cells(study.trials) if len(varied) > len(factors(varied)) else cells.iloc[:0],
        ensembles=_all_ensembles(usable, gains, keys),
        evidence=evidence,
        settings=tuple(_settings(singles, gains, evidence.differences, factors(varied))),
        problems=(*study.problems, *problems),
    )


def _examine(usable: pd.DataFrame, keys: list[str], resamples: int) -> Evidence:
    """Examine every series, side by side on the cores: the bootstrap spends its time outside Python."""
    groups = dict(list(usable.groupby(keys, dropna=False)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda series: examine_series(series, resamples), groups.values()))
    joined = {}
    for name, columns in EVIDENCE_COLUMNS.items():
        frames = [
            getattr(evidence, name).assign(**dict(zip(keys, key, strict=True)))
            for key, evidence in zip(groups, found, strict=True)
        ]
        joined[name] = join_rows(frames, [*keys, *columns])
    return Evidence(**joined)


def _add_intervals(cells: pd.DataFrame, intervals: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Add the columns test_<metric>_low and test_<metric>_high; NaN for ensembles."""
    cell = [*keys, "patch_size"]
    for metric in METRICS:
        bounds = intervals.loc[intervals["metric"] == metric, [*cell, "low", "high"]]
        names = {bound: f"test_{metric}_{bound}" for bound in ("low", "high")}
        cells = cells.merge(bounds.rename(columns=names), how="left", on=cell)
    return cells


def compare_with_largest(cells: pd.DataFrame, differences: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return one row per series: its largest patch size against the one that validation prefers, headline metric.

    Columns: `keys`, baseline, baseline_score, chosen, chosen_score, gain, low, high, p (of the gain), cost and seconds
    (chosen as a multiple of baseline), best and best_gain (the best patch size on the test split: not a choice one
    could have made, but what papers report).
    """
    score, choice = f"test_{HEADLINE}_mean", f"val_{HEADLINE}_mean"
    rows = []
    for key, block in cells.groupby(list(keys), sort=False, dropna=False):
        sizes = block.set_index("patch_size")
        first = sizes.loc[sizes.index.max()]
        chosen = sizes.loc[_prefer(sizes[choice], sizes["gflops_mean"])]
        best = sizes.loc[_prefer(sizes[score], sizes["gflops_mean"])]
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"baseline": first.name, "baseline_score": first[score]}
            | {"chosen": chosen.name, "chosen_score": chosen[score], "gain": chosen[score] - first[score]}
            | {"cost": chosen["gflops_mean"] / first["gflops_mean"]}
            | {"seconds": chosen["train_seconds_mean"] / first["train_seconds_mean"]}
            | {"best": best.name, "best_gain": best[score] - first[score]}
        )
    gains = pd.DataFrame(rows)
    tested = differences.rename(columns={"patch_size": "chosen"}).drop(columns="estimate")
    return gains.merge(tested, how="left", on=[*keys, "chosen", "baseline"])


def _prefer(score: pd.Series, cost: pd.Series) -> int:
    """Return the patch size of the highest score, the cheaper of equals; an undefined score comes last."""
    order = pd.DataFrame({"score": score, "cost": cost}).sort_values(["score", "cost"], ascending=[False, True])
    return int(order.index[0])


def _settings(
    cells: pd.DataFrame, gains: pd.DataFrame, differences: pd.DataFrame, factors: list[str]
) -> Iterator[Setting]:
    by = ["dimensions", *factors]
    for key, block in cells.groupby(by, dropna=False):
        here = dict(zip(by, key, strict=True))
        label = ", ".join([f"{here['dimensions']}D", *(f"{name}={here[name]}" for name in factors)])
        own, tested = (frame[(frame[by] == pd.Series(here)).all(axis=1)] for frame in (gains, differences))
        scores = block.pivot(index="dataset_label", columns="patch_size", values=f"test_{HEADLINE}_mean")
        try:
            ranks = compare_ranks(scores[sorted(scores.columns, reverse=True)])
        except ValueError:  # too few datasets or patch sizes for a test; the report says so
            ranks = None
        yield Setting(label, own.assign(p_holm=correct_holm(own["p"])), _answer(block, tested), ranks)


def _answer(cells: pd.DataFrame, differences: pd.DataFrame) -> Answer | None:
    """Choose one patch size by its mean validation score over the datasets that have every size."""
    validation = _by_patch(cells, f"val_{HEADLINE}_mean")
    complete = validation.dropna()
    if complete.empty:
        complete = validation.dropna(axis=1)
    if complete.empty or complete.shape[1] < 2:
        return None
    test, gflops, seconds = (
        _by_patch(cells, f"{name}_mean").loc[complete.index, complete.columns]
        for name in (f"test_{HEADLINE}", "gflops", "train_seconds")
    )
    baseline, cost = int(complete.columns.max()), gflops.mean()
    chosen = _prefer(complete.mean(), cost)
    near = complete.mean() >= complete.mean()[chosen] - NEAR
    frugal = int(cost[near].idxmin())
    gain = test[chosen] - test[baseline]
    tests = differences[(differences["patch_size"] == chosen) & differences["dataset_label"].isin(complete.index)]
    clear = tests["estimate"][correct_holm(tests["p"]) < ALPHA]
    return Answer(
        datasets=tuple(complete.index),
        sizes=tuple(sorted(map(int, complete.columns), reverse=True)),
        baseline=baseline,
        chosen=chosen,
        frugal=frugal,
        gain=(float(gain.mean()), float(gain.min()), float(gain.max())),
        better=int((clear > 0).sum()),
        worse=int((clear < 0).sum()),
        tested=len(tests),
        cost=float(cost[chosen] / cost[baseline]),
        seconds=float(seconds[chosen].sum() / seconds[baseline].sum()),
        frugal_gain=float((test[frugal] - test[baseline]).mean()),
        frugal_cost=float(cost[frugal] / cost[baseline]),
    )


def _by_patch(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    return cells.pivot(index="dataset_label", columns="patch_size", values=column)


def _all_ensembles(usable: pd.DataFrame, gains: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return `summarize` of every kind of ensemble: the default members by mean and by vote; all patch sizes by
    validation; the seeds of the patch size that validation prefers.
    """
    if usable.empty:
        return pd.DataFrame()
    sizes = [*keys, "seed"]
    parts = [patch_ensembles(usable, rules=("mean", "vote"))]
    parts.append(score_ensembles(usable, sizes, ("weighted", "greedy"), minimum=2).assign(patch="by validation"))
    chosen = usable.merge(gains[[*keys, "chosen"]], on=keys).query("patch_size == chosen")
    parts.append(score_ensembles(chosen, [*keys, "patch_size"], minimum=2).assign(rule="seeds", seed=-1))
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame()
    return summarize(pd.concat(filled, ignore_index=True), [*keys, "rule", "patch"])
