"""Intervals, rank tests and diagnostics equal the reference libraries', on ordinary and on degenerate data."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import metrics as reference
from torchmetrics.functional.classification import multiclass_calibration_error

from raypatch.analysis.statistics.diagnostics import class_scores, expected_calibration_error, reliability
from raypatch.analysis.statistics.ranks import compare_ranks, critical_difference
from raypatch.analysis.statistics.resampling import (
    average,
    bootstrap_difference,
    difference,
    draw_images,
    resample_mean,
    resample_scores,
)
from raypatch.analysis.statistics.stacks import MisalignedError, Stack
from raypatch.tasks import find_metric, find_task


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


def strata_drawn(stack, task, resamples=1000):
    return draw_images(find_task(task).strata(stack.label), resamples)


def score(probability, label, task):
    return find_task(task).score(probability, label)


def scores_of(stack, task, metric, weights):
    return resample_scores(stack, find_task(task), find_metric(metric), weights)


def bootstrap_score(stack, task, metric, weights):
    return resample_mean(stack, find_task(task), find_metric(metric), weights).interval


def compare_stacks(first, second, task, metric, weights):
    return bootstrap_difference(first, second, find_task(task), find_metric(metric), weights)


class TestBootstrap:
    def test_each_class_keeps_its_size(self):
        label = made_stack().label
        weights = draw_images(label, 50)
        for stratum in range(3):
            assert set(weights[label == stratum].sum(axis=0)) == {np.count_nonzero(label == stratum)}
        assert not np.array_equal(weights[:, 0], weights[:, 1])
        np.testing.assert_array_equal(weights, draw_images(label, 50))

    @pytest.mark.parametrize("rounded", [False, True], ids=["random", "ties"])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_resampled_scores_are_those_of_the_drawn_images(self, classes, rounded):
        stack = made_stack(2, 60, classes, rounded=rounded)
        task = "binary" if classes == 2 else "multiclass"
        weights = draw_images(stack.label, 20)
        found = {m: scores_of(stack, task, m, weights) for m in ("accuracy", "balanced_accuracy", "auc")}
        for draw in range(20):
            drawn = np.repeat(np.arange(60), weights[:, draw].astype(int))
            for member in range(2):
                wanted = score(stack.probability[member][drawn], stack.label[drawn], task)
                for metric, values in found.items():
                    assert values[member, draw] == pytest.approx(wanted[metric], abs=1e-5)

    def test_resampled_multilabel_scores_are_those_of_the_drawn_images(self):
        stack = made_multilabel()
        weights = strata_drawn(stack, "multilabel", 10)
        for metric in ("accuracy", "balanced_accuracy", "auc"):
            found = scores_of(stack, "multilabel", metric, weights)
            for draw in range(10):
                drawn = np.repeat(np.arange(150), weights[:, draw].astype(int))
                wanted = score(stack.probability[1][drawn], stack.label[drawn], "multilabel")
                assert found[1, draw] == pytest.approx(wanted[metric], abs=1e-5)

    def test_interval_equals_scipys(self):
        stack = made_stack(1, 400, 2, strength=0.2)
        found = bootstrap_score(stack, "binary", "balanced_accuracy", draw_images(stack.label, 4000))
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

    def test_paired_difference_equals_scipys(self):
        better, worse = made_stack(1, 300, 1, 1), made_stack(1, 300, 1, 2)
        rng = np.random.default_rng(3)
        label = np.zeros(300, np.int64)
        better, worse = (
            Stack(s.index, label, np.eye(2, dtype=np.float32)[(rng.random(300) > share).astype(int)][None])
            for s, share in ((better, 0.8), (worse, 0.7))
        )
        weights = draw_images(label, 4000)
        found = compare_stacks(better, worse, "binary", "accuracy", weights)
        right = [s.probability[0].argmax(axis=1) == 0 for s in (better, worse)]
        wanted = stats.bootstrap(
            (right[0].astype(float) - right[1],), np.mean, method="percentile", n_resamples=4000, rng=rng
        ).confidence_interval
        assert found.low == pytest.approx(wanted.low, abs=0.01)
        assert found.high == pytest.approx(wanted.high, abs=0.01)
        assert (found.p < 0.05) == (wanted.low > 0 or wanted.high < 0)

    def test_no_difference_to_itself(self):
        stack = made_stack()
        found = compare_stacks(stack, stack, "multiclass", "auc", draw_images(stack.label))
        assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)

    def test_difference_is_antisymmetric_and_clear_ones_are_significant(self):
        good, bad = made_stack(1, strength=1.0, seed=1), made_stack(1, strength=0.1, seed=2)
        weights = draw_images(good.label)
        one = compare_stacks(good, bad, "multiclass", "accuracy", weights)
        other = compare_stacks(bad, good, "multiclass", "accuracy", weights)
        assert one.p == other.p < 0.01
        assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))

    def test_seeds_that_differ_widen_the_interval(self):
        one = made_stack(1, strength=0.5)
        two = made_stack(1, strength=0.05, seed=7)
        both = Stack(one.index, one.label, np.concatenate([one.probability, two.probability]))
        weights = draw_images(one.label)
        alone = bootstrap_score(one, "multiclass", "accuracy", weights)
        found = bootstrap_score(both, "multiclass", "accuracy", weights)
        assert found.high - found.low > 1.5 * (alone.high - alone.low)

    def test_missing_class_leaves_the_auc_undefined(self):
        stack = made_stack(1, 50, 3)
        stack = Stack(stack.index, np.where(stack.label == 2, 0, stack.label), stack.probability)
        found = bootstrap_score(stack, "multiclass", "auc", draw_images(stack.label, 20))
        assert math.isnan(found.estimate)
        assert math.isnan(found.low)
        assert math.isnan(compare_stacks(stack, stack, "multiclass", "auc", draw_images(stack.label, 20)).p)

    def test_single_class_still_has_an_accuracy(self):
        stack = made_stack(1, 50, 2)
        stack = Stack(stack.index, np.zeros(50, np.int64), stack.probability)
        found = bootstrap_score(stack, "binary", "balanced_accuracy", draw_images(stack.label, 100))
        assert found.low <= found.estimate <= found.high

    def test_the_mean_of_settings_is_resampled_on_the_same_images(self):
        good, bad = made_stack(2, strength=1.0, seed=1), made_stack(2, strength=0.1, seed=2)
        weights = draw_images(good.label, 200)
        parts = [resample_mean(one, find_task("multiclass"), find_metric("accuracy"), weights) for one in (good, bad)]
        both = average(parts)
        assert both.estimate == pytest.approx((parts[0].estimate + parts[1].estimate) / 2)
        np.testing.assert_allclose(both.drawn, (parts[0].drawn + parts[1].drawn) / 2)
        assert difference(both, both).estimate == 0
        assert average(parts[:1]).interval == parts[0].interval

    def test_other_images_are_refused(self):
        with pytest.raises(MisalignedError):
            compare_stacks(made_stack(), made_stack(images=100), "multiclass", "auc", draw_images(made_stack().label))


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
