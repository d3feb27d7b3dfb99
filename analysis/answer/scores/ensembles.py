"""Ensembles of finished trials: which are members, and what they score and cost together.

Members of one ensemble share a series and a seed; weights and members come from the validation
split alone.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.analysis.answer.scores.cells import Question
from raypatch.analysis.answer.scores.mask_ensembles import have_pixels, score_mean_masks, trial_paths
from raypatch.analysis.answer.scores.summary import summarize
from raypatch.analysis.frames.columns import score_column
from raypatch.analysis.statistics.ensembles import Combination, Rule, combine, fit_combination
from raypatch.analysis.statistics.stacks import Stack, load_stack
from raypatch.config import TrialConfig, field_facts
from raypatch.factors import Factor
from raypatch.tasks import ClassTask, Metric, UndefinedMetricWarning, find_task

MOST_MEMBERS = 3


def default_members(factor: Factor, validation: pd.Series, *, lower: bool = False) -> tuple[str, ...]:
    """Return the levels whose models make the default ensemble; none where there are fewer than two.

    validation: mean validation score by level of one series; only its levels can be members. Of an
    ordered factor they are the last three, which are the patch sizes 1, 2 and 4 of arXiv 2602.18614
    where the study has these. Of another factor they are all levels, of more than three the three
    best on validation. lower: a lower score is better.
    """
    known = [name for name in factor.names if name in validation.index]
    if len(known) < 2:
        return ()
    if factor.ordered or len(known) <= MOST_MEMBERS:
        return tuple(known[-MOST_MEMBERS:])
    ranked = validation.reindex(known).sort_values(ascending=lower, kind="stable", na_position="last")
    chosen = set(ranked.index[:MOST_MEMBERS])
    return tuple(name for name in known if name in chosen)


def sort_members(trials: pd.DataFrame, factor: Factor) -> pd.DataFrame:
    """Return the trials in the order in which an ensemble names its members: numbers from the smallest."""
    falling = factor.name in TrialConfig.model_fields and field_facts(factor.name).order == "falling"
    return trials.sort_values("level_rank", ascending=not falling, kind="stable")


def join_levels(names: Sequence[str]) -> str:
    """Return the name of an ensemble of these levels: 1+2+4, with room around names that are no numbers."""
    short = all(name.isdigit() for name in names)
    return ("+" if short else " + ").join(names)


def score_ensembles(
    trials: pd.DataFrame, by: Sequence[str], rules: Sequence[Rule] = ("mean",), *, minimum: int = 1
) -> pd.DataFrame:
    """Return one row per group of `trials` that agree in the columns `by`, and per rule; members are all of a group.

    Filter `trials` first to choose the members, and put them in order: by level with `by` naming
    the seed, by seed with `by` naming the level. Columns: `by`, rule, level (of the members,
    `1+2+4`), member_ids, member_weights, gflops and gflops_without_attention (sum over the members
    with weight), val_ and test_ scores. Groups of fewer than `minimum` members are left out. Masks
    are combined by their mean alone, where all members have kept their pixels. Raises what
    `load_stack` raises.
    """
    rows = []
    for key, group in trials.groupby(list(by), sort=False, dropna=False):
        if len(group) < minimum:
            continue
        task = find_task(group["task"].iloc[0])
        own = dict(zip(by, key, strict=True))
        if not isinstance(task, ClassTask):
            if "mean" in rules and have_pixels(trial_paths(group)):
                equal = np.full(len(group), 1 / len(group))
                rows.append({"rule": "mean"} | _members(group, equal) | score_mean_masks(group, task) | own)
            continue
        stacks = {"val": load_stack(group, "val"), "test": load_stack(group, "test")}
        for rule in rules:
            combination = fit_combination(rule, stacks["val"], task)
            members = _members(group, combination.weights)
            # The keys last: where `by` names the level, it is that, and not the members' levels.
            rows.append({"rule": rule} | members | _score(combination, stacks, task) | own)
    return pd.DataFrame(rows)


def _score(combination: Combination, stacks: Mapping[str, Stack], task: ClassTask) -> dict[str, object]:
    """The scores of an ensemble on both splits, by column."""
    scores: dict[str, object] = {}
    for split, stack in stacks.items():
        together = combine(combination, stack.probability, task)
        # A class without images leaves a score undefined, which the report's notes say.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            found = task.score(together, stack.label)
        for name, score in found.items():
            scores[score_column(split, name)] = score
    return scores


def _members(group: pd.DataFrame, weights: NDArray[np.float64]) -> dict[str, object]:
    # A member without weight need not run, so that it costs nothing and is not named.
    used = group[weights > 0]
    return {
        "level": join_levels(list(used["level"].unique())),
        "member_ids": tuple(used["trial_id"]),
        "member_weights": tuple(weights[weights > 0]),
        "gflops": used["gflops"].sum(),
        "gflops_without_attention": used["gflops_without_attention"].sum(),
    }


def level_ensembles(
    question: Question, trials: pd.DataFrame, metric: Metric, rules: Sequence[Rule] = ("mean",)
) -> pd.DataFrame:
    """Return `score_ensembles` over the default members of each series, by seed.

    trials: of `question`, one recipe per series and level, see `select_recipes`. metric: by which
    validation chooses members where it has to. A seed that lacks one of them gives no ensemble.
    """
    found = []
    for _, series in trials.groupby(question.series, sort=False, dropna=False):
        validation = series.groupby("level", sort=False)[score_column("val", metric.name)].mean()
        names = default_members(question.factor, validation, lower=metric.lower_is_better)
        if len(names) < 2:
            continue
        members = sort_members(series[series["level"].isin(names)], question.factor)
        found.append(score_ensembles(members, [*question.series, "seed"], rules, minimum=len(names)))
    return _join(found)


def _join(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    # pandas warns of frames without rows, whose columns have no type.
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame()
    return pd.concat(filled, ignore_index=True)


def all_ensembles(
    question: Question, usable: pd.DataFrame, chosen: pd.DataFrame, metric: Metric, metrics: Sequence[str]
) -> pd.DataFrame:
    """Return `summarize` of every kind of ensemble, by series, rule and level.

    The default members by mean and by vote; all levels, weights or members by validation; and the
    seeds of the level that validation prefers (rule `seeds`). usable: trials with predictions.
    chosen: the columns of the series and `chosen`, a level.
    """
    if usable.empty:
        return pd.DataFrame()
    parts = [level_ensembles(question, usable, metric, ("mean", "vote"))]
    everyone = sort_members(usable, question.factor)
    by_validation = score_ensembles(everyone, [*question.series, "seed"], ("weighted", "greedy"), minimum=2)
    parts.append(by_validation.assign(level="by validation"))
    preferred = usable.merge(chosen[[*question.series, "chosen"]], on=question.series)
    preferred = preferred[preferred["level"] == preferred["chosen"]]
    parts.append(score_ensembles(preferred, question.cell, minimum=2).assign(rule="seeds"))
    ensembles = _join(parts)
    if ensembles.empty:
        return ensembles
    return summarize(ensembles, [*question.series, "rule", "level"], metrics)
