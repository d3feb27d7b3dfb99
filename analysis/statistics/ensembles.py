"""Ensembles of finished trials: which members, how they are combined, what that scores and costs.

Weights and members come from the validation split alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.analysis.answer.cells import default_members, finished, recipe_fields, series_keys
from raypatch.analysis.load import SCORES
from raypatch.analysis.statistics.stacks import Stack, load_stack
from raypatch.data.catalog import Task
from raypatch.tasks.metrics import predicted_classes, score

Rule = Literal["mean", "vote", "weighted", "greedy"]
RULES: tuple[Rule, ...] = get_args(Rule)

GREEDY_ROUNDS = 20
NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class Combination:
    """How M members become one prediction. weights: (M,), their sum is 1; a member of weight 0 need not run."""

    rule: Rule
    weights: NDArray[np.float64]


def fit_combination(rule: Rule, val: Stack, task: Task) -> Combination:
    """Return the weights of the members, from their validation predictions where the rule asks for it.

    mean, vote: equal weights. weighted: the mixture weights of least log loss. greedy: forward selection with
    replacement by the log loss of the mean (Caruana et al., ICML 2004); the weight is how often a member was taken.
    """
    members = len(val.probability)
    if rule == "weighted":
        return Combination(rule, fit_mixture(val, task))
    if rule == "greedy":
        return Combination(rule, select_greedily(val, task))
    return Combination(rule, np.full(members, 1 / members))


def fit_mixture(val: Stack, task: Task, steps: int = 500) -> NDArray[np.float64]:
    """Return the weights (M,) that minimise the log loss of the weighted mean on `val`.

    The loss is convex in the weights; expectation-maximisation for mixing proportions lowers it in every step.
    Weights under 0.001 become 0.
    """
    members = len(val.probability)
    likelihood = _likelihood(val, task).reshape(members, -1)
    weights = np.full(members, 1 / members)
    for _ in range(steps):
        mixture = weights @ likelihood
        step = weights * (likelihood / mixture).mean(axis=1)
        if np.abs(step - weights).max() < 1e-7:
            break
        weights = step
    weights[weights < NEGLIGIBLE] = 0
    return normalize(weights)


def normalize(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights divided by their sum."""
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _likelihood(stack: Stack, task: Task) -> NDArray[np.float64]:
    """Return the probability of what is true: (M, N), multilabel (M, N, C); at least float32's smallest."""
    probability = stack.probability.astype(np.float64)
    if task == "multilabel":
        likely = np.where(stack.label.astype(bool), probability, 1 - probability)
    else:
        likely = np.take_along_axis(probability, stack.label[None, :, None], axis=2)[..., 0]
    return likely.clip(np.finfo(np.float32).tiny)


def select_greedily(val: Stack, task: Task, rounds: int = GREEDY_ROUNDS) -> NDArray[np.float64]:
    """Return how often each member was taken, as weights (M,): the best of the first `rounds` greedy ensembles."""
    likelihood = _likelihood(val, task).reshape(len(val.probability), -1)
    taken = np.zeros(len(likelihood))
    total = np.zeros(likelihood.shape[1])
    best, best_loss = taken, np.inf
    for count in range(1, rounds + 1):
        losses = -np.log((total + likelihood) / count).mean(axis=1)
        choice = int(losses.argmin())
        taken = taken + np.eye(len(likelihood))[choice]
        total = total + likelihood[choice]
        if losses[choice] < best_loss - 1e-12:
            best, best_loss = taken, float(losses[choice])
    return normalize(best)


def combine(combination: Combination, probability: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
    """Return the ensemble's probability (N, C) from its members' (M, N, C).

    vote: the share of the members' votes for each class, equal votes settled by the mean probability, which counts
    as one more ballot. The other rules: the weighted mean.
    """
    combined: NDArray[np.float64] = np.tensordot(combination.weights, probability.astype(np.float64), axes=1)
    if combination.rule == "vote":
        chosen = np.stack([predicted_classes(member, task) for member in probability])
        ballots = chosen if task == "multilabel" else np.eye(probability.shape[2])[chosen]
        combined = (ballots.sum(axis=0) + combined) / (len(probability) + 1)
    return combined


def score_ensembles(
    trials: pd.DataFrame, by: Sequence[str], rules: Sequence[Rule] = ("mean",), *, minimum: int = 1
) -> pd.DataFrame:
    """Return one row per group of `trials` that agree in the columns `by`, and per rule; members are all of a group.

    Filter `trials` first to choose the members: by patch size with `by` naming the seed, by seed with `by` naming the
    patch size. Columns: `by`, rule, patch (members' patch sizes, `1+2+4`), members (trial ids), weights, gflops and
    gflops_without_attention (sum over the members with weight), val_ and test_ scores.
    Groups of fewer than `minimum` members are left out. Raises what `load_stack` raises.
    """
    rows = []
    for key, group in finished(trials).sort_values("patch_size").groupby(list(by), sort=False, dropna=False):
        if len(group) < minimum:
            continue
        task: Task = group["task"].iloc[0]
        val, test = load_stack(group, "val"), load_stack(group, "test")
        for rule in rules:
            combination = fit_combination(rule, val, task)
            row = dict(zip(by, key, strict=True)) | {"rule": rule} | _members(group, combination.weights)
            for split, stack in (("val", val), ("test", test)):
                scores = score(combine(combination, stack.probability, task), stack.label, task)
                row |= {f"{split}_{name}": scores[name] for name in SCORES}
            rows.append(row)
    return pd.DataFrame(rows)


def _members(group: pd.DataFrame, weights: NDArray[np.float64]) -> dict[str, object]:
    used = group[weights > 0]
    return {
        "patch": "+".join(map(str, sorted(set(used["patch_size"])))),
        "members": tuple(used["trial_id"]),
        "weights": tuple(weights[weights > 0]),
        "gflops": used["gflops"].sum(),
        "gflops_without_attention": used["gflops_without_attention"].sum(),
    }


def patch_ensembles(
    trials: pd.DataFrame, patch_sizes: Sequence[int] | None = None, rules: Sequence[Rule] = ("mean",)
) -> pd.DataFrame:
    """Return `score_ensembles` over the patch sizes of each series and seed.

    trials: one recipe per series and patch size, see `select_recipes`. patch_sizes: the members, by default
    `default_members` of each series; a seed that lacks one of them gives no ensemble.
    """
    trials = finished(trials)
    keys = series_keys(recipe_fields(trials))
    found = []
    for _, series in trials.groupby(keys, sort=False, dropna=False):
        sizes = default_members(series["patch_size"].tolist()) if patch_sizes is None else patch_sizes
        members = series[series["patch_size"].isin(sizes)]
        if len(sizes) > 1:
            found.append(score_ensembles(members, [*keys, "seed"], rules, minimum=len(sizes)))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
