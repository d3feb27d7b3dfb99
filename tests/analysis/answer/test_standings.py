"""How levels stand over the datasets: on a small made table of known verdicts, and on 1,440 published accuracies."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raypatch.analysis.answer.conclusions import rank_levels
from raypatch.analysis.answer.scores.averages import average_cells, common_settings
from raypatch.analysis.answer.scores.cells import Question
from raypatch.analysis.answer.standings import average_over_datasets, rank_counts, step_counts
from raypatch.analysis.statistics.ranks import compare_ranks, correct_bonferroni, least_wilcoxon_p, wilcoxon_p
from raypatch.analysis.statistics.standings import count_ranks, count_steps, find_quartiles
from raypatch.factors import Factor, factor_of_axis, factor_of_field
from raypatch.tasks import find_metric

ACCURACY = find_metric("accuracy")
ROOT = Path(os.environ.get("MEDMNIST_ROOT", "../shared/data/medmnist")).parents[1]
PUBLISHED = ROOT / "papers_tables" / "paper_2404_15786_acc.csv"

# Twelve datasets, four levels. `best` is above `base` everywhere, `mostly` everywhere but on the smallest difference
# (rank sum 1), `often` everywhere but on the second smallest (rank sum 2).
STEPS = np.arange(1, 13) / 100
MADE = pd.DataFrame(
    {
        "base": 0.5 + 0 * STEPS,
        "best": 0.5 + STEPS,
        "mostly": 0.5 + STEPS * np.where(np.arange(12) == 0, -1, 1),
        "often": 0.5 + STEPS * np.where(np.arange(12) == 1, -1, 1),
    },
    index=[f"set {number}" for number in range(12)],
)


class TestPairs:
    def test_a_made_table_has_the_verdicts_that_its_rank_sums_say(self):
        pairs = compare_ranks(MADE).wilcoxon.set_index(["first", "second"])
        # Of 2^12 orders of signs 1, 2 and 3 have a rank sum of at most 0, 1 and 2; two-sided twice as many.
        for second, orders in (("best", 1), ("mostly", 2), ("often", 3)):
            assert pairs.loc[("base", second), "p"] == pytest.approx(2 * orders / 2**12)
        corrected = pairs["p_bonferroni"]
        assert corrected[("base", "best")] == pytest.approx(6 * 2 / 2**12)
        # Of two of the three one dataset differs, or two: nothing can be said.
        assert pairs.loc[("best", "mostly"), ["p", "equal"]].tolist() == [1.0, 11]
        assert pairs.loc[("mostly", "often"), "equal"] == 10
        assert (corrected >= pairs["p_holm"] - 1e-12).all()

    def test_the_normal_approximation_would_never_get_there(self):
        least = stats.wilcoxon(MADE["best"] - MADE["base"], method="asymptotic").pvalue
        assert least > 0.05 / 45 > wilcoxon_p((MADE["best"] - MADE["base"]).to_numpy())

    def test_equal_scores_are_left_out_and_counted_though_rounding_differs(self):
        one, other = MADE.copy(), MADE.copy()
        one["best"] = 0.1 + 0.2 + 0 * STEPS
        other["best"] = 0.3 + 0 * STEPS
        assert (one["best"] != other["best"]).all()
        assert wilcoxon_p((one["best"] - other["best"]).to_numpy()) == 1.0
        assert wilcoxon_p(np.array([0.0, 0.01, 0.02, 1e-17])) == least_wilcoxon_p(2) == 0.5

    @pytest.mark.parametrize("n", [3, 6, 10])
    def test_p_equals_counting_all_orders_of_signs(self, n):
        difference = np.random.default_rng(n).normal(0.3, 1, n)
        ranks = stats.rankdata(abs(difference))
        signs = np.array(np.meshgrid(*[[0, 1]] * n)).reshape(n, -1).T
        sums = signs @ ranks
        own = ranks[difference > 0].sum()
        wanted = min(1, 2 * min((sums <= own).mean(), (sums >= own).mean()))
        assert wilcoxon_p(difference) == pytest.approx(wanted)

    @pytest.mark.parametrize(("n", "k", "possible"), [(5, 2, False), (6, 2, True), (10, 10, False), (11, 10, True)])
    def test_too_few_datasets_can_never_show_a_difference(self, n, k, possible):
        scores = pd.DataFrame(np.random.default_rng(0).random((n, k)))
        assert compare_ranks(scores).can_be_significant is possible

    def test_bonferroni_counts_the_pairs_that_were_tested(self):
        found = correct_bonferroni(pd.Series([0.01, math.nan, 0.4, 0.6]))
        np.testing.assert_allclose(found, [0.03, math.nan, 1.0, 1.0])


class TestCounts:
    def test_ranks_are_counted_and_equal_scores_count_for_the_better_one(self):
        scores = pd.DataFrame({"a": [0.9, 0.8, 0.5], "b": [0.7, 0.8, 0.6], "c": [0.1, 0.9, math.nan]})
        found = count_ranks(scores, most=2)
        assert found.loc["a", ["rank_1", "rank_2", "series"]].tolist() == [1, 1, 2]
        assert found.loc["b", ["rank_1", "rank_2"]].tolist() == [0, 2]
        assert found["mean_rank"].tolist() == [1.75, 2.25, 2.0]

    def test_a_step_counts_where_both_of_its_levels_are(self):
        scores = pd.DataFrame({"28": [0.5, 0.6, math.nan], "64": [0.7, 0.6, 0.5], "128": [0.6, 0.9, 0.9]})
        found = count_steps(scores).set_index(["first", "second"])
        assert found.loc[("28", "64"), ["improved", "equal", "series"]].tolist() == [1, 1, 2]
        assert found.loc[("64", "128"), "share"] == pytest.approx(2 / 3)

    def test_quartiles_are_numpys(self):
        found = find_quartiles(MADE)
        np.testing.assert_allclose(
            found.loc["best", ["q25", "q50", "q75"]], np.quantile(MADE["best"], [0.25, 0.5, 0.75])
        )


def question_of(factor: Factor, *settings: Factor) -> Question:
    return Question(factor, settings, (), pd.DataFrame())


def made_cells(setting: list[str], std: float = 0.01) -> pd.DataFrame:
    """MADE as cells under each setting, each a little better than the one before."""
    frames = []
    for place, name in enumerate(setting):
        long = (
            MADE.rename_axis("dataset").reset_index().melt("dataset", var_name="level", value_name="test_accuracy_mean")
        )
        long["test_accuracy_mean"] += 0.1 * place
        frames.append(long.assign(scheme=name, dimensions=2, dataset_label=long["dataset"], test_accuracy_std=std))
    return pd.concat(frames, ignore_index=True)


class TestCells:
    backbone = factor_of_axis("backbone", {name: {"model": name} for name in MADE})
    scheme = factor_of_axis("scheme", {"probe": {"method": "linear_probe"}, "tuned": {"method": "finetune"}})

    def test_averages_are_means_of_means_and_of_deviations(self):
        cells = made_cells(["probe", "tuned"])
        cells.loc[cells["dataset"] == "set 0", "test_accuracy_std"] = 0.13
        found = average_over_datasets(cells, question_of(self.backbone, self.scheme), ACCURACY)
        row = found.set_index(["scheme", "level"]).loc[("tuned", "best")]
        assert row["mean"] == pytest.approx(0.6 + STEPS.mean())
        assert row["std"] == pytest.approx(0.02)
        assert row["datasets"] == 12
        both = found.set_index(["scheme", "level"]).loc[("all", "best")]
        assert both["mean"] == pytest.approx(0.55 + STEPS.mean())

    def test_a_dataset_that_lacks_a_level_is_in_no_average(self):
        cells = made_cells(["probe"])
        cells = cells[~((cells["dataset"] == "set 3") & (cells["level"] == "best"))]
        found = average_over_datasets(cells, question_of(self.backbone), ACCURACY)
        assert set(found["datasets"]) == {11}

    def test_ranks_are_counted_as_a_whole_by_setting_and_by_dataset(self):
        found = rank_counts(made_cells(["probe", "tuned"]), question_of(self.backbone, self.scheme), ACCURACY)
        whole = found[found["part"] == "all"].set_index("level")
        assert whole.loc["best", ["rank_1", "series"]].tolist() == [24, 24]
        assert whole.loc["base", "rank_4"] == 20
        assert set(found["part"]) == {"all", "Scheme", "Dataset"}
        assert (found.loc[found["part"] == "Dataset", "series"] == 2).all()

    def test_steps_are_counted_for_ordered_factors_alone(self):
        cells = made_cells(["probe"])
        sizes = dict(zip(MADE, ["28", "64", "128", "224"], strict=True))
        sized = cells.assign(level=cells["level"].map(sizes))
        image_size = factor_of_field("image_size", [28, 64, 128, 224])
        found = step_counts(sized, question_of(image_size), ACCURACY)
        assert found["improved"].tolist() == [12, 0, 1]
        assert step_counts(cells, question_of(self.backbone), ACCURACY).empty

    def test_of_one_dataset_nothing_is_averaged_or_counted(self):
        cells = made_cells(["probe"]).query("dataset == 'set 1'")
        question = question_of(self.backbone)
        assert average_over_datasets(cells, question, ACCURACY).empty
        assert rank_counts(cells, question, ACCURACY).empty


# The pairs that the significance figure of arXiv 2404.15786 marks, as the README beside the table has recovered them:
# exact two-sided tests on 12 datasets at p < .05/45. The other 25 of 45 it does not.
SIGNIFICANT = {
    "samvit_base_patch16": {
        *("alexnet", "densenet121", "eva02_base_patch16_clip_224", "resnet18", "vgg16", "vit_base_patch16_224"),
        *("vit_base_patch16_224.dino", "vit_base_patch16_clip_224"),
    },
    "vit_base_patch16_224.dino": {
        *("alexnet", "efficientnet_b4", "eva02_base_patch16_clip_224", "resnet18", "vit_base_patch16_224"),
        "vit_base_patch16_clip_224",
    },
    "vit_base_patch16_224": {"efficientnet_b4", "eva02_base_patch16_clip_224", "resnet18"},
    "densenet121": {"efficientnet_b4", "resnet18"},
    "vgg16": {"resnet18"},
}
# Its average table, percent, by size 28, 64, 128, 224.
AVERAGES = {
    ("end_to_end", "vgg16"): (82.34, 85.33, 86.64, 86.70),
    ("end_to_end", "alexnet"): (78.92, 82.94, 85.04, 85.74),
    ("end_to_end", "resnet18"): (79.66, 83.42, 85.73, 86.22),
    ("end_to_end", "densenet121"): (80.32, 84.62, 87.13, 87.11),
    ("end_to_end", "efficientnet_b4"): (73.18, 79.37, 82.52, 82.44),
    ("end_to_end", "vit_base_patch16_224"): (78.23, 83.17, 84.94, 86.06),
    ("end_to_end", "vit_base_patch16_clip_224"): (76.73, 80.39, 82.33, 82.75),
    ("end_to_end", "eva02_base_patch16_clip_224"): (76.69, 80.77, 82.76, 84.72),
    ("end_to_end", "vit_base_patch16_224.dino"): (78.51, 82.13, 84.31, 84.84),
    ("end_to_end", "samvit_base_patch16"): (78.26, 82.13, 84.19, 84.30),
    ("linear_probe", "vgg16"): (71.18, 75.14, 78.58, 79.62),
    ("linear_probe", "alexnet"): (69.63, 76.11, 79.08, 81.02),
    ("linear_probe", "resnet18"): (64.41, 70.49, 74.94, 76.89),
    ("linear_probe", "densenet121"): (72.10, 78.01, 80.77, 82.22),
    ("linear_probe", "efficientnet_b4"): (67.29, 73.95, 76.39, 77.91),
    ("linear_probe", "vit_base_patch16_224"): (73.21, 79.62, 83.08, 84.01),
    ("linear_probe", "vit_base_patch16_clip_224"): (74.17, 78.67, 81.54, 82.24),
    ("linear_probe", "eva02_base_patch16_clip_224"): (73.04, 76.50, 78.48, 79.30),
    ("linear_probe", "vit_base_patch16_224.dino"): (78.23, 82.74, 84.46, 85.11),
    ("linear_probe", "samvit_base_patch16"): (43.69, 48.10, 54.14, 61.20),
    ("knn", "vit_base_patch16_224.dino"): (73.61, 79.41, 81.17, 81.90),
    ("knn", "vit_base_patch16_224"): (65.92, 70.90, 75.45, 77.51),
    ("knn", "eva02_base_patch16_clip_224"): (69.63, 72.64, 74.64, 75.52),
}


needs_table = pytest.mark.skipif(not PUBLISHED.is_file(), reason="no published table at hand")


@pytest.fixture(scope="module")
def published_cells():
    table = pd.read_csv(PUBLISHED)
    cells = table.rename(columns={"model": "level"}).assign(dimensions=2, dataset_label=table["dataset"])
    cells["size"] = cells["size"].astype(str)
    return cells.assign(test_accuracy_mean=table["acc"] / 100, test_accuracy_std=math.nan)


@pytest.fixture(scope="module")
def published_question(published_cells):
    axes = {}
    for name in ("level", "scheme", "size"):
        levels = {level: {"model": level} for level in published_cells[name].unique()}
        axes[name] = factor_of_axis(name, levels)
    return question_of(axes["level"], axes["scheme"], axes["size"])


@pytest.mark.real_data
@needs_table
def test_the_45_verdicts_of_the_published_significance_figure_come_out(published_cells, published_question):
    means = average_cells(common_settings(published_cells, published_question))
    found = rank_levels(means, published_question.factor, ACCURACY)
    assert found is not None
    assert (len(found.datasets), len(found.wilcoxon)) == (12, 45)
    wanted = {frozenset((first, second)) for first, others in SIGNIFICANT.items() for second in others}
    is_clear = found.wilcoxon["p_bonferroni"] < 0.05
    marked = found.wilcoxon.loc[is_clear, ["first", "second"]]
    assert set(map(frozenset, marked.itertuples(index=False))) == wanted
    assert found.can_be_significant


@pytest.mark.real_data
@needs_table
def test_the_published_averages_come_out_to_the_rounding_of_their_inputs(published_cells, published_question):
    averages = average_over_datasets(published_cells, published_question, ACCURACY)
    found = averages.set_index(["scheme", "level", "size"])["mean"]
    for (scheme, level), row in AVERAGES.items():
        for size, wanted in zip(("28", "64", "128", "224"), row, strict=True):
            # The inputs and the published mean are both rounded to 0.01.
            assert 100 * found[scheme, level, size] == pytest.approx(wanted, abs=0.0101)
    assert len(found) == 120 + 10  # and the mean over all settings


@pytest.mark.real_data
@needs_table
def test_ranks_of_the_published_table_add_up(published_cells, published_question):
    found = rank_counts(published_cells, published_question, ACCURACY)
    whole = found[found["part"] == "all"].set_index("level")
    assert (whole["series"] == 144).all()
    assert whole["mean_rank"].sum() == pytest.approx(55)
    assert whole["mean_rank"].idxmin() == "vit_base_patch16_224.dino"
