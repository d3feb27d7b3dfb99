"""Curves, areas, thresholds and net benefit equal the reference libraries', on random and on degenerate data."""

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from raypatch.analysis.statistics.curves.decision import ACT_FROM, benefit_of_all, net_benefit
from raypatch.analysis.statistics.curves.delong import delong
from raypatch.analysis.statistics.curves.roc_and_pr import GRID, average_precision, curve_on_grid
from raypatch.analysis.statistics.curves.thresholds import choose_threshold, rates_at
from raypatch.analysis.statistics.patients import by_patient
from raypatch.analysis.statistics.stacks import Stack

# DeLong, DeLong and Clarke-Pearson (1988): albumin, total protein, K-G score and whether surgery helped, as the
# manual of SAS's PROC LOGISTIC prints them.
OVARIAN = """
3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0   2.5 5.7  8 0   1.6 5.6  5 1
3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1   4.1 6.6  5 1   3.6 5.7  5 1   4.3 7.0  4 1   3.6 6.7  4 0
2.3 4.4  6 1   4.2 7.6  4 0   4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1   3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1
3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1   3.2 5.1  5 1   2.6 4.7  6 1   3.3 6.8  6 0   1.7 4.0  7 0
3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1   3.5 6.2  5 1   2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1
3.3 5.7  6 1   3.7 6.9  5 1   3.6 6.6  5 1
"""


def once(count):
    return np.ones((count, 1), np.float32)


def made_scores(kind, count=120):
    rng = np.random.default_rng(3)
    truth = rng.random(count) < 0.3
    score = {
        "random": rng.random(count) + 0.3 * truth,
        "ties": (rng.random(count) + 0.3 * truth).round(1),
        "perfect": truth + 0.1 * rng.random(count),
        "inverted": 1.0 - truth,
        "constant": np.full(count, 0.5),
    }[kind]
    return np.clip(score / max(score.max(), 1), 0, 1).astype(np.float32), truth


KINDS = ["random", "ties", "perfect", "inverted", "constant"]


@pytest.mark.parametrize("kind", KINDS)
def test_curves_are_scikit_learns(kind):
    score, truth = made_scores(kind)
    false, hit, _ = reference.roc_curve(truth, score, drop_intermediate=False)
    # At a false positive rate where the curve rises, the upper end counts.
    wanted = [hit[false <= point].max() if point in false else np.interp(point, false, hit) for point in GRID]
    assert curve_on_grid("roc", score, truth, once(len(truth)))[:, 0] == pytest.approx(wanted, abs=1e-9)
    precision, recall, _ = reference.precision_recall_curve(truth, score)
    # From the strictest threshold on: the last point, of recall 0 and precision 1, is scikit-learn's own.
    precision, recall = precision[-2::-1], recall[-2::-1]
    found = curve_on_grid("pr", score, truth, once(len(truth)))[:, 0]
    lowest = recall[recall > 0][0]
    for point, value in zip(GRID, found, strict=True):
        assert value == pytest.approx(precision[np.argmax(recall >= max(point, lowest) - 1e-12)], abs=1e-9)
    assert average_precision(score, truth, once(len(truth)))[0] == pytest.approx(
        reference.average_precision_score(truth, score), abs=1e-6
    )


def test_curves_of_a_resample_are_those_of_the_drawn_images():
    score, truth = made_scores("ties")
    counts = np.random.default_rng(0).multinomial(120, np.full(120, 1 / 120), size=4).T.astype(np.float32)
    for kind in ("roc", "pr"):
        drawn = curve_on_grid(kind, score, truth, counts)
        for resample, times in enumerate(counts.T.astype(int)):
            images = np.repeat(np.arange(120), times)
            alone = curve_on_grid(kind, score[images], truth[images], once(len(images)))
            assert drawn[:, resample] == pytest.approx(alone[:, 0], abs=1e-6)


@pytest.mark.parametrize("truth", [np.ones(5, bool), np.zeros(5, bool)], ids=["all positive", "none positive"])
def test_one_class_alone_has_no_curve_and_no_threshold(truth):
    score = np.linspace(0, 1, 5).astype(np.float32)
    assert np.isnan(curve_on_grid("roc", score, truth, once(5))).all()
    assert math.isnan(choose_threshold(score, truth))
    assert np.isnan(delong([score], truth).area).all()
    assert np.isnan(rates_at(math.nan, score, truth, once(5))["ppv"]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_youdens_threshold_is_the_best_of_scikit_learns(kind):
    score, truth = made_scores(kind)
    threshold = choose_threshold(score, truth)
    found = rates_at(threshold, score, truth, once(len(truth)))
    false, hit, _ = reference.roc_curve(truth, score, drop_intermediate=False)
    best = (hit - false)[1:].max()
    assert found["sensitivity"][0] + found["specificity"][0] - 1 == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95, 1.0])
def test_a_wanted_sensitivity_is_reached_with_the_highest_threshold(wanted):
    score, truth = made_scores("random")
    threshold = choose_threshold(score, truth, wanted)
    assert (score[truth] >= threshold).mean() >= wanted
    stricter = score[score > threshold].min()
    assert (score[truth] >= stricter).mean() < wanted


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_scikit_learns(kind):
    score, truth = made_scores(kind)
    found = {name: values[0] for name, values in rates_at(0.4, score, truth, once(len(truth))).items()}
    called = score >= 0.4
    options = {"zero_division": np.nan}
    assert found["sensitivity"] == pytest.approx(reference.recall_score(truth, called, **options))
    assert found["specificity"] == pytest.approx(reference.recall_score(~truth, ~called, **options))
    assert found["ppv"] == pytest.approx(reference.precision_score(truth, called, **options), nan_ok=True)
    assert found["npv"] == pytest.approx(reference.precision_score(~truth, ~called, **options), nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_net_benefit_is_that_of_the_confusion_matrix(kind):
    score, truth = made_scores(kind)
    found = net_benefit(score, truth, once(len(truth)))[:, 0]
    for place, act_from in enumerate(ACT_FROM):
        _, alarms, _, hits = reference.confusion_matrix(
            truth, score >= np.float32(act_from), labels=[False, True]
        ).ravel()
        wanted = hits / len(truth) - alarms / len(truth) * act_from / (1 - act_from)
        assert found[place] == pytest.approx(wanted, abs=1e-5)
    everybody = net_benefit(np.ones(len(truth), np.float32), truth, once(len(truth)))[:, 0]
    assert benefit_of_all(truth) == pytest.approx(everybody, abs=1e-5)


def test_delongs_own_example():
    table = np.array(OVARIAN.split(), float).reshape(-1, 4)
    albumin, protein, grade, popind = table.T
    # As there: an event is popind 0; a high albumin, protein or 10 - grade speaks against it.
    found = delong([-albumin, -(10 - grade), -protein], popind == 0)
    assert found.area == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    assert found.interval(0) == pytest.approx((0.5549, 0.9182), abs=1e-4)
    gap, error, _ = found.difference()
    assert (gap, error) == pytest.approx((0.0108, 0.0953), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_delongs_area_is_scikit_learns(kind):
    score, truth = made_scores(kind)
    found = delong([score, score], truth)
    assert found.area[0] == pytest.approx(reference.roc_auc_score(truth, score), abs=1e-9)
    assert found.difference() == (0.0, 0.0, 1.0)
    low, high = found.interval()
    assert 0 <= low <= found.area[0] <= high <= 1


def test_a_patient_is_the_mean_of_its_images_and_needs_one_label():
    label = np.array([0, 0, 1, 0, 1])
    probability = np.random.default_rng(0).random((2, 5, 2)).astype(np.float32)
    group = np.array(["b", "b", "a", "c", "c"])
    found = by_patient(Stack(np.arange(5), label, probability, group))
    assert found.mixed == 1
    assert found.stack.label.tolist() == [1, 0]
    assert found.stack.probability[:, 0] == pytest.approx(probability[:, 2])
    assert found.stack.probability[:, 1] == pytest.approx(probability[:, :2].mean(axis=1))
    assert by_patient(Stack(np.arange(5), label, probability)) is None
