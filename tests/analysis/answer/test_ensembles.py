"""Ensembles: nothing gained from copies, weights and members from validation alone, cost of what runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from raypatch.analysis.answer.scores.cells import ask
from raypatch.analysis.answer.scores.ensembles import (
    default_members,
    join_levels,
    level_ensembles,
    score_ensembles,
    sort_members,
)
from raypatch.analysis.frames.load import load_study, load_trials
from raypatch.analysis.statistics.ensembles import RULES, combine, fit_combination, fit_mixture, select_greedily
from raypatch.analysis.statistics.stacks import MisalignedError, Stack, load_predictions
from raypatch.factors import factor_of_axis, factor_of_field
from raypatch.results import SweepPaths, write_predictions
from raypatch.tasks import find_metric, find_task

from made_runs import made_configs, write_run


def made_stack(members, images=120, classes=4, seed=0, task="multiclass"):
    rng = np.random.default_rng(seed)
    if task == "multilabel":
        label = rng.integers(0, 2, (images, classes))
        probability = np.clip(0.3 * label + 0.7 * rng.random((members, images, classes)), 0, 1)
        return Stack(np.arange(images), label, probability.astype(np.float32))
    label = np.arange(images) % classes
    strength = rng.uniform(0.2, 2, members)[:, None, None]
    probability = rng.dirichlet(np.ones(classes), (members, images)) + strength * np.eye(classes)[label]
    probability /= probability.sum(axis=2, keepdims=True)
    return Stack(np.arange(images), label, probability.astype(np.float32))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    configs = made_configs(["breastmnist", "vesselmnist3d"], [14, 4, 2, 1], 3, epochs=2)
    return write_run(tmp_path_factory.mktemp("runs") / "made", configs)


HEADLINE = find_metric("balanced_accuracy")


def question_of(run):
    results = load_study(run)
    return ask(results, results.factors[0])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("rule", RULES)
def test_ensemble_of_one_member_or_of_copies_equals_the_member(rule, copies, task):
    one = made_stack(1, task=task)
    stack = Stack(one.index, one.label, np.repeat(one.probability, copies, axis=0))
    combination = fit_combination(rule, stack, find_task(task))
    found = combine(combination, stack.probability, find_task(task))
    assert combination.weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(find_task(task).predicted(found), find_task(task).predicted(one.probability[0]))
    if rule != "vote":
        np.testing.assert_allclose(found, one.probability[0], atol=1e-6)
        wanted = find_task(task).score(one.probability[0], one.label)["auc"]
        assert find_task(task).score(found, one.label)["auc"] == pytest.approx(wanted)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("members", [2, 3, 4])
def test_vote_follows_the_majority_and_settles_ties_by_the_mean(members, task):
    stack = made_stack(members, seed=members, task=task)
    known = find_task(task)
    found = known.predicted(combine(fit_combination("vote", stack, known), stack.probability, known))
    mean = stack.probability.mean(axis=0)
    if task == "multilabel":
        ballots = (stack.probability > 0.5).sum(axis=0)
        wanted = np.where(2 * ballots == members, mean > 0.5, 2 * ballots > members)
    else:
        ballots = np.stack([(stack.probability.argmax(axis=2) == c).sum(axis=0) for c in range(4)], axis=1)
        wanted = np.where(ballots == ballots.max(axis=1, keepdims=True), mean, -1).argmax(axis=1)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("rule", RULES)
def test_combined_probabilities_are_a_distribution(rule):
    stack = made_stack(5)
    task = find_task("multiclass")
    found = combine(fit_combination(rule, stack, task), stack.probability, task)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert found.min() >= 0


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_mixture_weights_have_the_least_validation_loss(task):
    stack = made_stack(4, seed=3, task=task)

    def loss(weights):
        mixed = np.tensordot(weights, stack.probability.astype(np.float64), axes=1)
        return find_task(task).log_loss(mixed, stack.label)

    found = fit_mixture(stack, find_task(task), steps=20_000)
    reference = optimize.minimize(
        loss,
        np.full(4, 0.25),
        method="SLSQP",
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    assert loss(found) <= reference.fun + 1e-4


def test_greedy_selection_is_no_worse_than_the_best_member_and_prefers_good_ones():
    stack = made_stack(6, seed=5)
    task = find_task("multiclass")
    weights = select_greedily(stack, task)
    losses = [task.log_loss(member, stack.label) for member in stack.probability]
    mixed = np.tensordot(weights, stack.probability.astype(np.float64), axes=1)
    assert task.log_loss(mixed, stack.label) <= min(losses) + 1e-9
    assert weights[np.argmin(losses)] > 0


def test_choice_does_not_look_at_the_test_split(run, tmp_path):
    trials = load_trials(run).query("dataset == 'breastmnist' and seed == 0")
    before = score_ensembles(trials, ["dataset", "seed"], RULES)
    for trial_id in trials["trial_id"]:
        splits = {split: load_predictions(run, trial_id, split) for split in ("val", "test")}
        test = splits["test"]
        shuffled = np.random.default_rng(1).permutation(test.probability)
        write_predictions(
            SweepPaths(run).trial(trial_id).predictions,
            splits | {"test": type(test)(test.index, test.label, shuffled)},
        )
    after = score_ensembles(trials, ["dataset", "seed"], RULES)
    assert list(after["member_weights"]) == list(before["member_weights"])
    assert not np.allclose(after["test_auc"], before["test_auc"])


def test_ensemble_of_levels_is_the_mean_of_the_same_seed_and_costs_the_sum(run):
    question = question_of(run)
    trials = question.trials
    found = level_ensembles(question, trials, HEADLINE).query("dataset == 'vesselmnist3d'").set_index("seed")
    assert list(found["level"]) == ["1+2+4"] * 3
    members = trials.query("dataset == 'vesselmnist3d' and seed == 1 and patch_size in (1, 2, 4)")
    assert found.loc[1, "gflops"] == pytest.approx(members["gflops"].sum())
    stack = [load_predictions(run, trial_id, "test") for trial_id in members["trial_id"]]
    mean = np.mean([one.probability for one in stack], axis=0)
    wanted = find_task("binary").score(mean, stack[0].label)
    assert found.loc[1, "test_balanced_accuracy"] == pytest.approx(wanted["balanced_accuracy"])
    assert found.loc[1, "test_auc"] == pytest.approx(wanted["auc"])


def test_member_without_weight_costs_nothing(run):
    trials = load_trials(run).query("dataset == 'vesselmnist3d' and seed == 0")
    for row in score_ensembles(trials, ["dataset", "seed"], ("greedy", "weighted")).to_dict("records"):
        used = trials[trials["trial_id"].isin(row["member_ids"])]
        assert len(row["member_weights"]) == len(row["member_ids"]) == len(used)
        assert row["gflops"] == pytest.approx(used["gflops"].sum())


def test_members_by_seed(run):
    found = score_ensembles(load_trials(run), ["dataset", "level"])
    assert len(found) == 8
    assert set(found["member_ids"].map(len)) == {3}


def test_seed_without_all_members_gives_no_ensemble(run):
    question = question_of(run)
    trials = question.trials.query("dataset == 'vesselmnist3d' and not (seed == 2 and level == '2')")
    assert sorted(level_ensembles(question, trials, HEADLINE)["seed"]) == [0, 1]


def test_other_images_are_refused(run):
    with pytest.raises(MisalignedError):
        score_ensembles(load_trials(run).query("seed == 0"), ["seed"])


def members_of(factor, **validation):
    return default_members(factor, pd.Series(validation))


def test_members_of_an_ordered_factor_are_its_last_levels_which_are_the_papers_patch_sizes():
    sizes = factor_of_field("patch_size", [28, 14, 7, 4, 2, 1])
    assert members_of(sizes, **dict.fromkeys(sizes.names, 0.5)) == ("4", "2", "1")
    assert members_of(sizes, **{"14": 0.9, "7": 0.1, "28": 0.9, "4": 0.1}) == ("14", "7", "4")
    assert members_of(sizes, **{"14": 0.5, "7": 0.5}) == ("14", "7")
    assert members_of(sizes, **{"7": 0.5}) == ()


def test_members_of_another_factor_are_all_levels_or_the_three_best_on_validation():
    backbones = factor_of_axis("backbone", {name: {"model": name} for name in "abcd"})
    assert members_of(backbones, a=0.1, b=0.2, c=0.3) == ("a", "b", "c")
    assert members_of(backbones, a=0.4, b=0.2, c=0.3, d=0.5) == ("a", "c", "d")
    validation = pd.Series({"a": 0.4, "b": 0.2, "c": 0.3, "d": 0.5})
    assert default_members(backbones, validation, lower=True) == ("a", "b", "c")


def test_members_are_named_from_the_smallest_number(run):
    question = question_of(run)
    ordered = sort_members(question.trials, question.factor)
    assert list(dict.fromkeys(ordered["level"])) == ["1", "2", "4", "14"]
    assert join_levels(["1", "2"]) == "1+2"
    assert join_levels(["ResNet-18", "ViT-B/16"]) == "ResNet-18 + ViT-B/16"
