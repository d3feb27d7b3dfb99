"""Which trials are averaged, which are compared, and which recipe stands for a level."""

import math

import numpy as np
import pandas as pd
import pytest

from raypatch.analysis.answer.scores.cells import ask, select_recipes
from raypatch.analysis.answer.scores.ensembles import level_ensembles
from raypatch.analysis.answer.scores.summary import mark_best, summarize_cells
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.wording import percent
from raypatch.tasks import find_metric

from made_runs import made_config, made_configs, write_run, write_study

METRICS = ["accuracy", "balanced_accuracy", "auc"]
HEADLINE = find_metric("balanced_accuracy")


def question_of(run, place=0):
    results = load_study(run)
    return ask(results, results.factors[place])


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    configs = made_configs(["breastmnist", "vesselmnist3d"], [14, 7, 4], 3, epochs=2)
    configs += made_configs(["retinamnist"], [14], 1, epochs=2)
    return question_of(write_run(tmp_path_factory.mktemp("runs") / "made", configs))


def test_hyperparameters_that_differ_within_a_cell_are_tuned(tmp_path):
    configs = made_configs(["breastmnist", "vesselmnist3d"], [14, 7], 2)
    assert question_of(write_run(tmp_path / "one", configs, images=0)).tuned == ()
    configs += made_configs(["breastmnist"], [14], 2, lr=3e-4)
    assert question_of(write_run(tmp_path / "two", configs, images=0)).tuned == ("lr",)


def test_mean_and_sample_deviation_over_seeds(question):
    cells = summarize_cells(question, question.trials, METRICS).set_index(["dataset", "level"])
    values = question.trials.query("dataset == 'breastmnist' and level == '7'")["test_auc"]
    cell = cells.loc[("breastmnist", "7")]
    assert cell["seeds"] == 3
    assert cell["test_auc_mean"] == pytest.approx(np.mean(values))
    assert cell["test_auc_std"] == pytest.approx(np.std(values, ddof=1))


def test_one_seed_has_no_deviation(question):
    cell = summarize_cells(question, question.trials, METRICS).query("dataset == 'retinamnist'").iloc[0]
    assert math.isnan(cell["test_auc_std"])
    assert percent(cell["test_auc_mean"], cell["test_auc_std"]) == f"{100 * cell['test_auc_mean']:.1f}"


def test_score_undefined_for_one_seed_is_undefined_for_the_cell(question):
    damaged = question.trials.copy()
    place = damaged.query("dataset == 'breastmnist' and level == '7'").index[0]
    damaged.loc[place, "test_auc"] = math.nan
    cells = summarize_cells(question, damaged, METRICS).set_index(["dataset", "level"])
    assert math.isnan(cells.loc[("breastmnist", "7"), "test_auc_mean"])


def test_trials_of_different_recipes_are_never_averaged(tmp_path):
    configs = made_configs(["breastmnist"], [14], 2) + made_configs(["breastmnist"], [14], 2, lr=3e-4)
    question = question_of(write_run(tmp_path, configs, images=0))
    cells = summarize_cells(question, question.trials, METRICS, recipe=question.tuned)
    assert list(cells["lr"]) == [1e-4, 3e-4]
    assert list(cells["seeds"]) == [2, 2]


def test_what_else_varies_makes_series_of_their_own(tmp_path):
    configs = [c for p in ("finetune", "linear_probe") for c in made_configs(["breastmnist"], [14, 7], 2, method=p)]
    question = question_of(write_run(tmp_path, configs))
    assert [setting.name for setting in question.settings] == ["method"]
    assert len(select_recipes(question)) == len(question.trials)
    ensembles = level_ensembles(question, question.trials, HEADLINE)
    cells = summarize_cells(question, question.trials, METRICS, ensembles=ensembles)
    assert cells.groupby("method").size().to_dict() == {"finetune": 3, "linear_probe": 3}
    assert list(cells["kind"]) == ["single", "single", "ensemble"] * 2


def test_each_factor_is_asked_with_the_other_as_its_setting(tmp_path):
    run = write_study(
        tmp_path / "run",
        {
            "compare": ["patch_size", "backbone"],
            "grid": {
                "dataset": ["breastmnist"],
                "patch_size": [14, 7],
                "backbone": {
                    "small one": {"model": "vit_tiny_patch16_224", "lr": 1e-4},
                    "large one": {"model": "vit_small_patch16_224", "lr": 5e-5},
                },
                "seed": [0, 1],
            },
        },
        images=40,
        epochs=2,
    )
    patch, backbone = question_of(run, 0), question_of(run, 1)
    assert (patch.setting_keys, backbone.setting_keys) == (["backbone"], ["patch_size"])
    assert patch.tuned == backbone.tuned == ()
    assert set(patch.trials["backbone"]) == {"small one", "large one"}
    assert set(backbone.trials["level"]) == {"small one", "large one"}
    assert list(dict.fromkeys(backbone.trials["patch_size"])) == ["14", "7"]


def test_hyperparameters_are_chosen_by_validation_never_by_test(tmp_path):
    configs = [c for lr in (1e-4, 2e-4, 3e-4) for c in made_configs(["breastmnist"], [14, 7], 2, lr=lr)]
    configs.append(made_config("breastmnist", 14, 7, lr=9e-4))
    question = question_of(write_run(tmp_path, configs, images=0))
    found = question.trials
    found.loc[found["lr"] == 2e-4, "val_loss"] = 0.01
    found.loc[found["lr"] == 3e-4, "test_auc"] = 1.0
    found.loc[found["lr"] == 9e-4, "val_loss"] = 0.001
    chosen = select_recipes(question)
    assert set(chosen["lr"]) == {2e-4}
    assert len(chosen) == 4


def test_best_single_is_marked_and_the_ensemble_only_above_it():
    means = pd.Series([0.8, 0.9, math.nan, 0.9, 0.95])
    kinds = pd.Series(["single", "single", "single", "single", "ensemble"])
    assert list(mark_best(means, kinds)) == [False, True, False, True, True]
    assert not mark_best(pd.Series([0.9, 0.85]), kinds[3:])[1]
    assert not mark_best(pd.Series([math.nan]), kinds[:1]).any()
    assert list(mark_best(means, kinds, lower=True)) == [True, False, False, False, False]
