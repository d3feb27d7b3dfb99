"""How the predictions of several trials become one: mean, vote, or weights that the validation split gives."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from raypatch.analysis.statistics.stacks import Stack
from raypatch.tasks import ClassTask

Rule = Literal["mean", "vote", "weighted", "greedy"]
RULES: tuple[Rule, ...] = get_args(Rule)

GREEDY_ROUNDS = 20
NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class Combination:
    """How M members become one prediction. weights: (M,), their sum is 1; a member of weight 0 need not run."""

    rule: Rule
    weights: NDArray[np.float64]


def fit_combination(rule: Rule, val: Stack, task: ClassTask) -> Combination:
    """Return the weights of the members, from their validation predictions where the rule asks for it.

    mean, vote: equal weights. weighted: the mixture weights of least log loss. greedy: forward
    selection with replacement by the log loss of the mean (Caruana et al., ICML 2004); the weight
    is how often a member was taken.
    """
    members = len(val.probability)
    if rule == "weighted":
        return Combination(rule, fit_mixture(val, task))
    if rule == "greedy":
        return Combination(rule, select_greedily(val, task))
    return Combination(rule, np.full(members, 1 / members))


def fit_mixture(val: Stack, task: ClassTask, steps: int = 500) -> NDArray[np.float64]:
    """Return the weights (M,) that minimise the log loss of the weighted mean on `val`.

    The loss is convex in the weights; expectation-maximisation for mixing proportions lowers it in
    every step. Weights under 0.001 become 0.
    """
    members = len(val.probability)
    # (M, K): what each member gave the right answer of each of K predictions.
    likelihood = task.likelihood(val.probability, val.label)
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


def select_greedily(val: Stack, task: ClassTask, rounds: int = GREEDY_ROUNDS) -> NDArray[np.float64]:
    """Return how often each member was taken, as weights (M,): the best of the first `rounds` greedy ensembles."""
    # (M, K): what each member gave the right answer of each of K predictions.
    likelihood = task.likelihood(val.probability, val.label)
    taken = np.zeros(len(likelihood))
    total = np.zeros(likelihood.shape[1])
    best, best_loss = taken, np.inf
    for count in range(1, rounds + 1):
        losses = -np.log((total + likelihood) / count).mean(axis=1)
        choice = int(losses.argmin())
        taken = taken + np.eye(len(likelihood))[choice]
        total = total + likelihood[choice]
        # A tie goes to the smaller ensemble; without the margin rounding would decide it.
        if losses[choice] < best_loss - 1e-12:
            best, best_loss = taken, float(losses[choice])
    return normalize(best)


def combine(combination: Combination, probability: NDArray[np.float32], task: ClassTask) -> NDArray[np.float64]:
    """Return the ensemble's probability (N, C) from its members' (M, N, C).

    vote: the share of the members' votes for each class, equal votes settled by the mean
    probability, which counts as one more ballot. The other rules: the weighted mean.
    """
    combined: NDArray[np.float64] = np.tensordot(combination.weights, probability.astype(np.float64), axes=1)
    if combination.rule == "vote":
        ballots = task.votes(probability).sum(axis=0)  # (N, C)
        combined = (ballots + combined) / (len(probability) + 1)
    return combined
