"""The answer in sentences: of any factor, over any settings, sure or not."""

import re

import pytest

from raypatch.analysis.answer.conclusions import Answer
from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.answer.sentences import how_sure, state_answers
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import prepare_report
from raypatch.analysis.report_parts import report_markdown

from made_runs import STUDIES, made_config, made_configs, write_run, write_study


def small(name, **changes):
    study = STUDIES[name]
    grid = study["grid"] | {"dataset": ["breastmnist", "retinamnist"], "seed": [0, 1]} | changes
    return study | {"grid": grid}


@pytest.mark.parametrize(
    ("name", "title", "said"),
    [
        ("methods", "Which training method?", "fine-tuning"),
        ("fractions", "Which share of the training images?", "% of the training images"),
        ("backbones", "Which backbone?", "ViT-S/16"),
    ],
)
def test_report_speaks_of_the_factor_and_of_no_other(tmp_path, name, title, said):
    report = prepare_report([write_study(tmp_path / "run", small(name), images=60, epochs=2)], 20)
    text = re.sub(r"command of .*", "", report_markdown(report))
    assert report.title == f"{title} run"
    assert said in report.text.splitlines()[0]
    assert "patch size" not in text.lower()


def test_two_factors_are_both_answered_per_setting_and_over_all_that_have_every_level(tmp_path):
    run = write_study(tmp_path / "run", small("two", patch_size=[14, 7]), images=60, epochs=2)
    report = prepare_report([run], 20)
    assert report.title == "Which patch size, and which model? run"
    labels = [statement.label for statement in report.statements]
    assert labels[:3] == [
        "Patch size, 2D, averaged over model",
        "Patch size, 2D, vit_tiny_patch16_224",
        "Patch size, 2D, vit_small_patch16_224",
    ]
    assert labels[3:] == ["Model, 2D, averaged over patch size", "Model, 2D, patch size 14", "Model, 2D, patch size 7"]
    assert "mean over 2 settings" in " ".join(report.statements[0].support)
    names = [table.name for table in report.tables]
    assert len(names) == len(set(names))


def test_a_factor_narrowed_to_one_level_is_told_once(tmp_path):
    run = write_study(tmp_path / "run", small("two", patch_size=[14]), images=60, epochs=2)
    first, *others = prepare_report([run], 20).statements
    assert (first.label, first.support) == ("Patch size, all settings", ())
    assert first.verdict == "No answer yet: patch size 14 is the only patch size so far, there is nothing to compare."
    assert [statement.label for statement in others] == ["Model, 2D"]


def test_the_mean_over_settings_is_that_of_the_trials(tmp_path):
    run = write_study(tmp_path / "run", small("two", patch_size=[14, 7]), images=60, epochs=2)
    results = load_study(run)
    (overall,) = conclude(results, results.factors[0], 20).overall
    trials = results.trials[results.trials["dataset"] == "breastmnist"]
    means = trials.groupby(["model", "level"])["test_balanced_accuracy"].mean().groupby("level").mean()
    gain = overall.gains.set_index("dataset").loc["breastmnist"]
    assert gain["baseline"] == "14"
    assert gain["baseline_score"] == pytest.approx(means["14"])
    assert gain["chosen_score"] == pytest.approx(means[gain["chosen"]])
    assert overall.answer.tested == (overall.answer.chosen != "14") * 2


def test_a_setting_that_lacks_a_level_is_not_averaged_over(tmp_path):
    models = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
    configs = [c for model in models for c in made_configs(["breastmnist"], [14, 7], 2, model=model)]
    configs = [c for c in configs if c.model != models[2] or c.patch_size == 14]
    (overall,) = conclude(load_study(write_run(tmp_path, configs, images=60)), resamples=20).overall
    assert set(overall.averaged) == set(models[:2])


def test_a_dataset_that_lacks_a_level_is_left_out_and_named(tmp_path):
    configs = [*made_configs(["breastmnist"], [14, 7], 2), made_config("retinamnist", 14, 0)]
    text = report_markdown(prepare_report([write_run(tmp_path, configs, images=60)], 20))
    assert "Left out of this answer: retinamnist (no result for patch size 7)." in text


def test_an_answer_without_a_shown_difference_names_no_points(tmp_path):
    run = write_run(tmp_path, made_configs(["breastmnist", "retinamnist"], [14, 7], 2, epochs=2), images=60)
    results = load_study(run)
    results.trials["val_balanced_accuracy"] = results.trials["patch_size"] / -100
    (statement,) = state_answers(conclude(results, resamples=50))
    assert statement.verdict == (
        "No difference shown in any of 2 datasets: patch size 7 and patch size 14 cannot be told apart by balanced"
        " accuracy."
    )
    assert "the training time on breastmnist, retinamnist." in statement.support[0]


@pytest.mark.parametrize(
    ("datasets", "better", "worse", "said"),
    [
        (1, 1, 0, "significant"),
        (1, 0, 1, "significant"),
        (3, 2, 0, "significantly better in 2 of 3 datasets"),
        (3, 1, 1, "significantly better in 1 and worse in 1 of 3 datasets"),
    ],
)
def test_a_clear_loss_is_told_as_one(datasets, better, worse, said):
    answer = Answer(
        datasets=("a", "b", "c")[:datasets],
        levels=("14", "7"),
        left_out=(),
        baseline="14",
        chosen="7",
        frugal="7",
        gain=(-0.08, -0.08, -0.08),
        better=better,
        worse=worse,
        tested=datasets,
        unclear=(),
        cost=3.4,
        seconds=2.5,
        frugal_gain=-0.08,
        frugal_cost=3.4,
        frugal_seconds=2.5,
    )
    assert how_sure(answer) == said
