"""Intervals, rank tests and diagnostics equal the reference libraries', on ordinary and on degenerate data."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import metrics as reference
from statsmodels.stats.multitest import multipletests
from torchmetrics.functional.classification import multiclass_calibration_error

from raypatch.analysis.statistics.diagnostics import class_scores, expected_calibration_error, reliability
from raypatch.analysis.statistics.draws import Draws, draw_images, measure_level
from raypatch.analysis.statistics.inference import difference_interval, score_interval
from raypatch.analysis.statistics.ranks import compare_ranks, correct_holm, critical_difference
from raypatch.analysis.statistics.stacks import MisalignedError, Stack, require_same_images
from raypatch.tasks import Metric, find_metric, find_task, resample_metric


def made_stack(members=1, images=200, classes=3, seed=0, strength=0.6, rounded=False):
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(classes), np.random.default_rng(99).integers(0, classes, images - classes)])
    probability = rng.dirichlet(np.ones(classes), (members, images)) + strength * np.eye(classes)[label]
    probability = (probability / probability.sum(axis=2, keepdims=True)).astype(np.float32)
    return Stack(np.arange(images), label, probability.round(1) if rounded else probability)


def made_multilabel(images=150, labels=4):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (images, labels))
    return Stack(np.arange(images), label, (0.3 * label + 0.7 * rng.random((2, images, labels))).astype(np.float32))


def score(probability, label, task):
    return find_task(task).score(probability, label)


def drawn_whole(stack, task, resamples):
    return draw_images(find_task(task).strata(stack.label), resamples, whole=True)


def scores_of(stack, task, metric, weights):
    members = stack.probability
    return np.stack(
        [resample_metric(find_metric(metric), one, stack.label, find_task(task), weights) for one in members]
    )


def level_of(stack, task, metric, resamples=1000):
    draws = Draws(find_task(task).strata(stack.label), resamples)
    return measure_level(stack, find_task(task), metric if isinstance(metric, Metric) else find_metric(metric), draws)


class TestBootstrap:
    @pytest.mark.parametrize("rounded", [False, True], ids=["random", "ties"])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_resampled_scores_are_those_of_the_drawn_images(self, classes, rounded):
        stack = made_stack(2, 60, classes, rounded=rounded)
        task = "binary" if classes == 2 else "multiclass"
        weights = drawn_whole(stack, task, 20)
        weights = weights[
            :, [all((column > 0)[stack.label == own].any() for own in range(classes)) for column in weights.T]
        ]
        found = {m: scores_of(stack, task, m, weights) for m in ("accuracy", "balanced_accuracy", "auc")}
        for draw in range(weights.shape[1]):
            drawn = np.repeat(np.arange(60), weights[:, draw].astype(int))
            for member in range(2):
                wanted = score(stack.probability[member][drawn], stack.label[drawn], task)
                for metric, values in found.items():
                    assert values[member, draw] == pytest.approx(wanted[metric], abs=1e-5)

    def test_resampled_multilabel_scores_are_those_of_the_drawn_images(self):
        stack = made_multilabel()
        weights = drawn_whole(stack, "multilabel", 10)
        for metric in ("accuracy", "balanced_accuracy", "auc"):
            found = scores_of(stack, "multilabel", metric, weights)
            for draw in range(10):
                drawn = np.repeat(np.arange(150), weights[:, draw].astype(int))
                wanted = score(stack.probability[1][drawn], stack.label[drawn], "multilabel")
                assert found[1, draw] == pytest.approx(wanted[metric], abs=1e-5)

    def test_interval_of_one_seed_equals_scipys(self):
        stack = made_stack(1, 400, 2, strength=0.2)
        found = score_interval(level_of(stack, "binary", "balanced_accuracy", 4000))
        right = stack.probability[0].argmax(axis=1) == stack.label
        wanted = stats.bootstrap(
            (right[stack.label == 0], right[stack.label == 1]),
            lambda zero, one, axis: (zero.mean(axis=axis) + one.mean(axis=axis)) / 2,
            vectorized=True,
            method="percentile",
            n_resamples=4000,
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert found.estimate == pytest.approx(score(stack.probability[0], stack.label, "binary")["balanced_accuracy"])
        assert found.low == pytest.approx(wanted.low, abs=0.006)
        assert found.high == pytest.approx(wanted.high, abs=0.006)

    def test_paired_difference_of_one_seed_equals_scipys(self):
        rng = np.random.default_rng(3)
        label = np.zeros(300, np.int64)
        stacks = []
        for share in (0.8, 0.7):
            predicted = (rng.random(300) > share).astype(int)
            stacks.append(Stack(np.arange(300), label, np.eye(2, dtype=np.float32)[predicted][None]))
        found = difference_interval(*(level_of(stack, "binary", "accuracy", 4000) for stack in stacks))
        right = [stack.probability[0].argmax(axis=1) == 0 for stack in stacks]
        wanted = stats.bootstrap(
            (right[0].astype(float) - right[1],), np.mean, method="percentile", n_resamples=4000, rng=rng
        ).confidence_interval
        assert found.low == pytest.approx(wanted.low, abs=0.01)
        assert found.high == pytest.approx(wanted.high, abs=0.01)

    def test_no_difference_to_itself(self):
        level = level_of(made_stack(3), "multiclass", "auc")
        found = difference_interval(level, level)
        assert (found.estimate, found.p) == (0, 1)
        assert found.low < 0 < found.high

    def test_difference_is_antisymmetric_and_clear_ones_are_significant(self):
        good, bad = made_stack(3, strength=1.0, seed=1), made_stack(3, strength=0.1, seed=2)
        levels = [level_of(stack, "multiclass", "accuracy") for stack in (good, bad)]
        one, other = difference_interval(*levels), difference_interval(*levels[::-1])
        assert one.p == pytest.approx(other.p)
        assert one.p < 0.01
        assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))

    def test_seeds_that_differ_widen_the_interval(self):
        one = made_stack(1, strength=0.5)
        two = made_stack(1, strength=0.05, seed=7)
        both = Stack(one.index, one.label, np.concatenate([one.probability, two.probability]))
        alone = score_interval(level_of(one, "multiclass", "accuracy"))
        found = score_interval(level_of(both, "multiclass", "accuracy"))
        assert found.high - found.low > 1.5 * (alone.high - alone.low)

    def test_missing_class_leaves_the_auc_undefined(self):
        stack = made_stack(1, 50, 3)
        stack = Stack(stack.index, np.where(stack.label == 2, 0, stack.label), stack.probability)
        level = level_of(stack, "multiclass", "auc", 20)
        assert math.isnan(score_interval(level).estimate)
        assert math.isnan(score_interval(level).low)
        assert math.isnan(difference_interval(level, level).p)

    def test_single_class_still_has_an_accuracy(self):
        stack = made_stack(1, 50, 2)
        stack = Stack(stack.index, np.zeros(50, np.int64), stack.probability)
        found = score_interval(level_of(stack, "binary", "balanced_accuracy", 100))
        assert found.low <= found.estimate <= found.high

    def test_a_metric_without_a_fast_form_has_nearly_the_same_interval(self):
        stack = made_stack(2, 120, 3)
        fast = find_metric("balanced_accuracy")
        slow = Metric("slow", "Slow", "slow", fast.function)
        wanted, found = (score_interval(level_of(stack, "multiclass", one, 400)) for one in (fast, slow))
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.02)

    def test_resamples_that_lack_a_class_are_left_out(self):
        stack = made_stack(2, 40, 3)
        label = np.where(np.arange(40) == 2, 2, np.minimum(stack.label, 1))  # one image of class 2
        slow = Metric("slow", "Slow", "slow", find_metric("auc").function)
        level = level_of(Stack(stack.index, label, stack.probability), "multiclass", slow, 200)
        assert np.isnan(level.drawn).any()
        found = score_interval(level)
        assert 0 < found.low < found.estimate < found.high <= 1

    def test_other_images_are_refused(self):
        with pytest.raises(MisalignedError):
            require_same_images(made_stack(), made_stack(images=100))


def made_scores(n, k, seed=0, effect=0.3):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(rng.random((n, k)) + effect * np.arange(k), columns=[28, 14, 7, 4, 2, 1][:k])


class TestRanks:
    @pytest.mark.parametrize(("n", "k"), [(12, 6), (5, 3), (2, 3)])
    def test_friedman_wilcoxon_and_nemenyi_equal_the_references(self, n, k):
        scores = made_scores(n, k)
        found = compare_ranks(scores)
        wanted = stats.friedmanchisquare(*scores.to_numpy().T)
        assert (found.statistic, found.p) == pytest.approx((wanted.statistic, wanted.pvalue))
        ranks = stats.rankdata(-scores.to_numpy(), axis=1).mean(axis=0)
        assert found.ranks.to_dict() == pytest.approx(dict(zip(scores.columns, ranks, strict=True)))
        pair = found.wilcoxon.set_index(["first", "second"]).loc[(28, 7)]
        assert pair["p"] == pytest.approx(stats.wilcoxon(scores[28], scores[7]).pvalue)
        q = abs(ranks[0] - ranks[2]) / math.sqrt(k * (k + 1) / (6 * n)) * math.sqrt(2)
        assert found.nemenyi.loc[28, 7] == pytest.approx(stats.studentized_range.sf(q, k, math.inf), abs=1e-3)

    def test_holm_correction_follows_its_definition(self):
        found = compare_ranks(made_scores(12, 4)).wilcoxon.sort_values("p")
        count = len(found)
        wanted = np.minimum(1, np.maximum.accumulate(found["p"].to_numpy() * np.arange(count, 0, -1)))
        np.testing.assert_allclose(found["p_holm"], wanted)

    def test_holm_correction_equals_statsmodels_and_leaves_out_what_is_undefined(self):
        p = pd.Series([0.04, math.nan, 0.001, 0.02, 0.02], index=list("abcde"))
        found = correct_holm(p)
        wanted = multipletests(p.dropna(), method="holm")[1]
        np.testing.assert_allclose(found.dropna(), wanted)
        assert math.isnan(found["b"])
        assert correct_holm(pd.Series([math.nan])).isna().all()

    def test_critical_difference_is_that_of_the_table(self):
        # Demšar 2006, table 5: q of 5 classifiers at 0.05 is 2.728.
        assert critical_difference(5, 30) == pytest.approx(2.728 * math.sqrt(5 * 6 / (6 * 30)), abs=2e-3)

    def test_equal_scores_are_no_difference(self):
        found = compare_ranks(made_scores(6, 3) * 0 + 1)
        assert math.isnan(found.p)
        assert set(found.ranks) == {2.0}
        assert set(found.wilcoxon["p_holm"]) == {1.0}
        assert found.nemenyi.to_numpy().min() > 0.99

    def test_partly_equal_scores_share_ranks(self):
        scores = made_scores(8, 3)
        scores[14] = scores[28]
        found = compare_ranks(scores)
        assert found.ranks[14] == found.ranks[28]

    def test_two_levels_have_no_friedman_but_a_wilcoxon(self):
        found = compare_ranks(made_scores(6, 2, effect=2))
        assert math.isnan(found.p)
        assert found.wilcoxon["p"].iloc[0] == pytest.approx(2 / 2**6)

    def test_incomplete_datasets_are_left_out_and_named(self):
        scores = made_scores(5, 3)
        scores.index = list("abcde")
        scores.loc["c", 7] = math.nan
        found = compare_ranks(scores)
        assert found.left_out == ("c",)
        assert found.datasets == ("a", "b", "d", "e")

    @pytest.mark.parametrize(("n", "k"), [(1, 6), (4, 1)])
    def test_one_dataset_or_one_level_is_refused(self, n, k):
        with pytest.raises(ValueError, match="two datasets"):
            compare_ranks(made_scores(n, k))


class TestDiagnostics:
    def test_class_scores_equal_scikit_learn(self):
        stack = made_stack(1, 100, 4)
        found = class_scores(stack.probability[0], stack.label, find_task("multiclass"), tuple("abcd"))
        precision, recall, f1, images = reference.precision_recall_fscore_support(
            stack.label, stack.probability[0].argmax(axis=1)
        )
        np.testing.assert_allclose(found[["precision", "recall", "f1"]], np.c_[precision, recall, f1])
        np.testing.assert_array_equal(found["images"], images)

    def test_multilabel_class_scores_equal_scikit_learn(self):
        stack = made_multilabel()
        found = class_scores(stack.probability[0], stack.label, find_task("multilabel"), tuple("abcd"))
        precision, recall, f1, images = reference.precision_recall_fscore_support(
            stack.label, stack.probability[0] > 0.5
        )
        np.testing.assert_allclose(found[["precision", "recall", "f1"]], np.c_[precision, recall, f1])
        np.testing.assert_array_equal(found["images"], images)

    def test_class_that_neither_occurs_nor_is_predicted_is_undefined(self):
        probability = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0]])
        found = class_scores(probability, np.array([0, 1]), find_task("multiclass"), ("a", "b", "c"))
        assert found.loc[2, ["recall", "precision", "f1"]].isna().all()
        assert found.loc[0, "f1"] == 1

    @pytest.mark.parametrize("classes", [2, 5])
    @pytest.mark.parametrize("rounded", [False, True], ids=["random", "ties"])
    def test_calibration_error_equals_torchmetrics(self, classes, rounded):
        stack = made_stack(1, 500, classes, strength=0.3, rounded=rounded)
        probability = stack.probability[0]
        found = expected_calibration_error(reliability(*find_task("multiclass").confidences(probability, stack.label)))
        wanted = multiclass_calibration_error(
            torch.from_numpy(probability), torch.from_numpy(stack.label), classes, n_bins=15, norm="l1"
        )
        assert found == pytest.approx(float(wanted), abs=1e-5)

    def test_sure_and_right_is_perfectly_calibrated(self):
        bins = reliability(np.ones(10), np.ones(10, bool))
        assert len(bins) == 1
        assert expected_calibration_error(bins) == 0
        assert expected_calibration_error(reliability(np.ones(10), np.zeros(10, bool))) == 1

    def test_multilabel_calibration_counts_every_label(self):
        stack = made_multilabel()
        bins = reliability(*find_task("multilabel").confidences(stack.probability[0], stack.label))
        assert bins["predictions"].sum() == 150 * 4

    def test_brier_score_equals_scikit_learn(self):
        two = made_stack(1, 100, 2)
        wanted = reference.brier_score_loss(two.label, two.probability[0][:, 1])
        assert find_task("binary").brier(two.probability[0], two.label) == pytest.approx(wanted, abs=1e-6)
        four = made_stack(1, 100, 4)
        probability = four.probability[0].astype(np.float64)
        probability /= probability.sum(axis=1, keepdims=True)
        wanted = reference.brier_score_loss(four.label, probability, scale_by_half=True)
        assert find_task("multiclass").brier(probability, four.label) == pytest.approx(wanted, abs=1e-6)
        many = made_multilabel()
        wanted = np.mean([reference.brier_score_loss(many.label[:, k], many.probability[0][:, k]) for k in range(4)])
        assert find_task("multilabel").brier(many.probability[0], many.label) == pytest.approx(wanted, abs=1e-6)
