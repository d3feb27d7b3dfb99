"""Intervals cover with few seeds, never collapse, and say what they speak of; power agrees with simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from raypatch.analysis.statistics.draws import Draws, draw_images, measure_level
from raypatch.analysis.statistics.inference import (
    LevelScores,
    difference_interval,
    mean_difference,
    mean_interval,
    score_interval,
)
from raypatch.analysis.statistics.power import plan_seeds, seeds_needed
from raypatch.analysis.statistics.proportions import parts_of_score, wilson
from raypatch.analysis.statistics.stacks import Stack
from raypatch.tasks import find_metric, find_task

METRICS = ("accuracy", "balanced_accuracy", "auc")


def made_stack(right, label, classes=2):
    """Predictions of members (M, N) that are sure, and right where `right` says so."""
    right, label = np.atleast_2d(right), np.asarray(label)
    predicted = np.where(right, label, (label + 1) % classes)
    return Stack(np.arange(len(label)), label, np.eye(classes, dtype=np.float32)[predicted])


def simulated(rng, label, seeds, spread=0.25, ease=0.6):
    """Right or wrong, (seeds, N): images hard for all, a seed's own noise, its skill."""
    image = rng.normal(0, math.sqrt(0.6), len(label))
    noise = rng.normal(0, math.sqrt(0.4), (seeds, len(label)))
    return ease + image + noise + rng.normal(0, spread, (seeds, 1)) > 0


def measured(stack, metric="balanced_accuracy", resamples=400, task="binary", groups=None):
    draws = Draws(find_task(task).strata(stack.label), resamples, groups=groups)
    return measure_level(stack, find_task(task), find_metric(metric), draws)


def balanced(stack, draws):
    return measure_level(stack, find_task("binary"), find_metric("balanced_accuracy"), draws)


LABEL = np.repeat([0, 1], [42, 114])


class TestCoverage:
    def test_three_seeds_that_differ_by_eight_points_are_covered(self):
        rng = np.random.default_rng(0)
        truth = stats.norm.cdf(0.6 / math.sqrt(1 + 0.25**2))
        draws = Draws(LABEL, 400)
        hits = []
        for _ in range(400):
            stack = made_stack(simulated(rng, LABEL, 3), LABEL)
            found = score_interval(balanced(stack, draws))
            hits.append(found.low <= truth <= found.high)
        assert 0.92 <= np.mean(hits) <= 0.985

    def test_a_recipe_is_seldom_better_than_itself(self):
        rng = np.random.default_rng(1)
        draws = Draws(LABEL, 400)
        found = []
        for _ in range(400):
            both = simulated(rng, LABEL, 6)
            levels = [balanced(made_stack(part, LABEL), draws) for part in (both[:3], both[3:])]
            found.append(difference_interval(*levels).p)
        assert np.mean(np.array(found) < 0.05) <= 0.06

    def test_interval_and_p_say_the_same(self):
        rng = np.random.default_rng(2)
        for ease in np.linspace(0.2, 1.5, 12):
            first = measured(made_stack(simulated(rng, LABEL, 3, 0.1), LABEL))
            second = measured(made_stack(simulated(rng, LABEL, 4, 0.1, ease), LABEL))
            found = difference_interval(first, second)
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
            back = difference_interval(second, first)
            assert (back.low, back.high, back.p) == pytest.approx((-found.high, -found.low, found.p))


class TestNeverCollapses:
    def test_accuracy_on_fifty_images_has_wilsons_bar(self):
        label = np.repeat([0, 1], [12, 38])
        all_majority = made_stack(label == 1, label)
        found = score_interval(measured(all_majority, "accuracy", 4000))
        assert found.estimate == pytest.approx(0.76)
        assert (found.low, found.high) == pytest.approx((0.626, 0.857), abs=0.012)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("seeds", [1, 3])
    @pytest.mark.parametrize("right", [True, False], ids=["all right", "all wrong"])
    def test_all_right_or_all_wrong(self, metric, seeds, right):
        level = measured(made_stack(np.full((seeds, len(LABEL)), right), LABEL), metric)
        found = score_interval(level)
        assert found.estimate == right
        assert 0 <= found.low <= found.estimate <= found.high <= 1
        assert found.high - found.low > 0.01
        against_itself = difference_interval(level, level)
        assert against_itself.low < 0 < against_itself.high

    def test_all_right_accuracy_is_exactly_wilsons(self):
        found = score_interval(measured(made_stack(np.ones((2, 50), bool), np.arange(50) % 2), "accuracy"))
        assert (found.low, found.high) == pytest.approx(proportion_confint(50, 50, method="wilson"))

    def test_the_majority_alone(self):
        level = measured(made_stack(np.tile(LABEL == 1, (3, 1)), LABEL))
        found = score_interval(level)
        assert found.estimate == 0.5
        assert 0.44 < found.low < 0.48
        assert 0.52 < found.high < 0.56

    def test_all_right_against_all_wrong_is_not_sure_beyond_measure(self):
        good, bad = (measured(made_stack(np.full((3, len(LABEL)), right), LABEL)) for right in (True, False))
        found = difference_interval(good, bad)
        assert 0.8 < found.low < 0.97
        assert found.p < 1e-6

    def test_scores_without_any_spread_have_a_difference_without_interval(self):
        always = LevelScores(np.full(2, 0.5), np.full((2, 50), 0.5), np.full((2, 1), 0.5), np.array([30.0]))
        found = mean_difference([always], [always], paired=False)
        assert found.estimate == 0
        assert math.isnan(found.low)
        assert math.isnan(found.p)

    def test_a_single_class_has_an_accuracy_and_no_auc(self):
        stack = made_stack(np.arange(60).reshape(2, 30) % 3 > 0, np.zeros(30, np.int64))
        assert score_interval(measured(stack)).low < score_interval(measured(stack)).high
        missing = score_interval(measured(stack, "auc"))
        assert math.isnan(missing.estimate)
        assert math.isnan(missing.low)
        assert math.isnan(difference_interval(measured(stack, "auc"), measured(stack, "auc")).p)

    def test_other_scores_than_proportions(self):
        drawn = np.zeros((3, 50))
        level = LevelScores(np.full(3, 0.5), drawn + 0.5, np.full((3, 1), 0.5), np.array([40.0]))
        found = score_interval(level)
        assert (found.low, found.high) == pytest.approx(wilson(0.5, 40))
        kappa = LevelScores(np.ones(3), drawn + 1, np.ones((3, 1)), np.array([40.0]))
        low, high = score_interval(kappa, bounds=(-1, 1)).low, score_interval(kappa, bounds=(-1, 1)).high
        assert (low, high) == pytest.approx((0.825, 1), abs=0.01)
        rng = np.random.default_rng(0)
        loss = LevelScores(np.array([2.0, 2.1, 1.9]), 2 + rng.normal(0, 0.1, (3, 50)), np.ones((3, 1)), np.ones(1))
        assert score_interval(loss, bounds=None).high > 2

    def test_wilson_equals_statsmodels(self):
        assert wilson(0.76, 50) == pytest.approx(proportion_confint(38, 50, method="wilson"))


class TestOneSeed:
    def test_it_speaks_of_the_images_alone(self):
        level = measured(made_stack(simulated(np.random.default_rng(3), LABEL, 1), LABEL), "accuracy", 4000)
        found = score_interval(level)
        assert (found.scope, found.seeds) == ("images", 1)
        assert math.isnan(found.seed_error)
        assert (found.low, found.high) == pytest.approx(wilson(found.estimate, len(LABEL)), abs=0.01)

    def test_nothing_is_significant(self):
        good, bad = (made_stack(np.full((1, len(LABEL)), right), LABEL) for right in (True, False))
        assert math.isnan(difference_interval(measured(good), measured(bad)).p)
        several = made_stack(np.zeros((3, len(LABEL)), bool), LABEL)
        found = difference_interval(measured(good), measured(several))
        assert math.isnan(found.p)
        assert found.scope == "images"
        assert seeds_needed([measured(good)], [measured(bad)]) is None


class TestSettings:
    def test_mean_over_settings_is_surer_than_one(self):
        rng = np.random.default_rng(4)
        levels = [measured(made_stack(simulated(rng, LABEL, 3), LABEL)) for _ in range(8)]
        one, many = score_interval(levels[0]), mean_interval(levels)
        assert many.high - many.low < one.high - one.low
        assert many.estimate == pytest.approx(np.mean([level.plain.mean() for level in levels]))
        found = mean_difference(levels[:4], levels[4:])
        wanted = np.mean([a.plain.mean() - b.plain.mean() for a, b in zip(levels[:4], levels[4:], strict=True)])
        assert found.estimate == pytest.approx(wanted)
        assert found.freedom > difference_interval(levels[0], levels[4]).freedom

    def test_settings_on_other_images(self):
        rng = np.random.default_rng(5)
        short = np.repeat([0, 1], [20, 30])
        levels = [measured(made_stack(simulated(rng, label, 3), label)) for label in (LABEL, short)]
        assert mean_difference(levels, levels).p == 1
        one_seed = [LevelScores(own.plain[:1], own.drawn[:1], own.shares[:1], own.counts) for own in levels]
        same = mean_difference(one_seed, one_seed)
        assert same.low < 0 < same.high

    def test_median_is_that_of_the_seeds_and_less_sure(self):
        level = measured(made_stack(simulated(np.random.default_rng(6), LABEL, 5), LABEL))
        mean, median = score_interval(level), score_interval(level, centre="median")
        assert median.estimate == np.median(level.plain)
        assert median.high - median.low > mean.high - mean.low

    def test_unequal_settings_are_refused(self):
        level = measured(made_stack(simulated(np.random.default_rng(7), LABEL, 2), LABEL))
        with pytest.raises(ValueError, match="1 settings of one level and 2"):
            mean_difference([level], [level, level])


class TestDraws:
    def test_same_draw_for_all_and_every_image_counts(self):
        weights = draw_images(LABEL, 50)
        np.testing.assert_array_equal(weights, draw_images(LABEL, 50))
        assert not np.array_equal(weights, draw_images(LABEL, 50, seed=1))
        np.testing.assert_allclose(weights.sum(axis=0), len(LABEL), rtol=1e-5)
        assert (weights > 0).all()

    @pytest.mark.parametrize("count", [5, 23, 200])
    def test_variance_of_a_recall_is_unbiased(self, count):
        label = np.repeat([0, 1], [count, 300])
        right = np.arange(len(label)) % 3 > 0
        drawn = measured(made_stack(right, label), resamples=20000).drawn[0]
        wanted = sum(right[label == own].var(ddof=1) / np.sum(label == own) for own in (0, 1)) / 4
        assert drawn.var() == pytest.approx(wanted, rel=0.06)

    def test_images_of_a_patient_are_drawn_together(self):
        groups = np.repeat([f"patient {n}" for n in range(52)], 3)
        weights = draw_images(LABEL, 20, groups=groups)
        for name in set(groups):
            own = weights[groups == name]
            np.testing.assert_array_equal(own, np.broadcast_to(own[0], own.shape))
        right = np.repeat(np.random.default_rng(8).random((1, 52)) > 0.3, 3, axis=1)
        alone, together = (score_interval(measured(made_stack(right, LABEL), groups=g)) for g in (None, groups))
        assert together.image_error > 1.4 * alone.image_error
        everyone = made_stack(np.ones((3, len(LABEL)), bool), LABEL)
        alone, together = (score_interval(measured(everyone, groups=g)) for g in (None, groups))
        assert together.low < alone.low

    def test_groups_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match="2 groups for 156 images"):
            draw_images(LABEL, 5, groups=np.array(["a", "b"]))

    def test_multilabel_scores_have_their_parts(self):
        rng = np.random.default_rng(9)
        label = rng.integers(0, 2, (80, 3))
        stack = Stack(np.arange(80), label, (0.3 * label + 0.7 * rng.random((2, 80, 3))).astype(np.float32))
        for metric, parts in (("accuracy", 3), ("balanced_accuracy", 6), ("auc", 3)):
            level = measured(stack, metric, task="multilabel")
            assert level.shares.shape == (2, parts)
            if metric != "auc":
                np.testing.assert_allclose(level.shares.mean(axis=1), level.plain, atol=1e-6)
            assert 0 < score_interval(level).low < score_interval(level).high < 1
        assert parts_of_score(stack, find_task("multilabel"), "loss") is None


class TestPower:
    def test_more_seeds_for_less_difference(self):
        needed = [plan_seeds([234, 390], d, score=0.85, seed_deviation=0.03) for d in (0.12, 0.06, 0.04)]
        assert needed == sorted(needed)
        assert needed[0] < needed[-1]

    def test_too_few_images_cannot_be_made_up_by_seeds(self):
        assert plan_seeds([10, 10], 0.01, score=0.8, seed_deviation=0.02) is None

    def test_a_plan_keeps_its_promise(self):
        difference, label = 0.10, np.repeat([0, 1], [150, 150])
        rng = np.random.default_rng(10)
        seeds = plan_seeds([150, 150], difference, score=0.75, seed_deviation=0.06, alike=(0.42, 0.42))
        draws = Draws(label, 300)
        better = stats.norm.ppf(0.8) * math.sqrt(1 + 0.2**2)
        worse = stats.norm.ppf(0.7) * math.sqrt(1 + 0.2**2)
        found = []
        for _ in range(200):
            image = rng.normal(0, math.sqrt(0.6), len(label))
            levels = []
            for ease in (better, worse):
                noise = rng.normal(0, math.sqrt(0.4), (seeds, len(label))) + rng.normal(0, 0.2, (seeds, 1))
                stack = made_stack(ease + image + noise > 0, label)
                levels.append(balanced(stack, draws))
            found.append(difference_interval(*levels).p < 0.05)
        assert 0.7 < np.mean(found) < 0.92

    def test_what_a_run_needs_depends_on_its_difference(self):
        rng = np.random.default_rng(11)
        label = np.repeat([0, 1], 400)
        near, far = (measured(made_stack(simulated(rng, label, 4, 0.1, ease), label)) for ease in (0.8, 1.4))
        base = measured(made_stack(simulated(rng, label, 4, 0.1, 0.4), label))
        assert 2 <= seeds_needed([far], [base]) <= seeds_needed([near], [base])
