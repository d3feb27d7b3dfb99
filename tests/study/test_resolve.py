"""A study resolved: the level of each trial, baselines, groups of a search, what was narrowed."""

from pathlib import Path

import pytest

from raypatch.study import Study, default_run_name, load_study
from raypatch.study.resolve import resolve_search, resolve_trials

from tiny import make_images

SIZES = {"small": {"model": "test_vit", "lr": 0.1}, "large": {"model": "test_vit2", "lr": 0.01}}


def _study(**content: object) -> Study:
    return Study.model_validate({"name": "test", **content})


def test_each_trial_has_a_level_of_each_factor() -> None:
    study = _study(
        compare=["patch_size", "size"],
        fixed={"dataset": "derma"},
        grid={"patch_size": [4, 14], "size": SIZES, "seed": [0, 1]},
    )
    found = resolve_trials(study)
    assert [factor.names for factor in found.factors] == [("14", "4"), ("small", "large")]
    assert len(found.levels) == len(found.trials) == 8
    for config in found.trials:
        patch, size = found.levels[config.trial_id()]
        assert patch == str(config.patch_size)
        assert SIZES[size] == {"model": config.model, "lr": config.lr}


@pytest.mark.parametrize(("given", "baseline"), [(None, "14"), (4, "4"), ("4", "4")])
def test_the_baseline_is_the_first_level_unless_the_study_says_another(given: object, baseline: str) -> None:
    content = {"compare": "patch_size", "fixed": {"dataset": "derma"}, "grid": {"patch_size": [14, 4]}}
    if given is not None:
        content["baseline"] = given
    (factor,) = resolve_trials(_study(**content)).factors
    assert factor.baseline == baseline


def test_a_baseline_that_was_narrowed_away_gives_way_to_the_first_level() -> None:
    study = load_study("data_fraction").override({"dataset": ["breast"], "train_fraction": [0.1, 0.3]})
    (factor,) = resolve_trials(study).factors
    assert (factor.names, factor.baseline) == (("10 %", "30 %"), "10 %")


def test_without_compare_the_patch_size_else_what_varies_is_the_factor() -> None:
    assert _study(fixed={"dataset": "derma"}, grid={"patch_size": [4], "model": ["a", "b"]}).compared == ("patch_size",)
    assert _study(grid={"model": ["a", "b"], "lr": [1, 2]}).compared == ("model",)
    assert _study(grid={"size": SIZES, "image_size": [28, 64]}).compared == ("size", "image_size")


def test_a_search_compares_its_groups() -> None:
    study = load_study("learning_rate").override({"dataset": ["derma"], "patch_size": [14, 7]})
    found = resolve_search(study)
    assert found.search.labels == ("dermamnist-p14", "dermamnist-p7")
    assert found.factors[0].names == ("14", "7")


def test_factors_searched_together_are_choices_of_one_group() -> None:
    study = load_study("learning_rate").override({"dataset": ["derma"], "patch_size": [14, 7]}).search_together()
    found = resolve_search(study)
    assert len(found.search.groups) == 1
    assert found.search.settings.fields["patch_size"].choice == (14, 7)
    assert study.question == "Which learning rate and patch size?"


def test_named_levels_are_searched_together() -> None:
    study = _study(
        compare="size",
        fixed={"dataset": "derma", "patch_size": 4, "epochs": 8},
        grid={"size": SIZES},
        search={"fields": {"weight_decay": {"loguniform": [1e-3, 0.1]}}, "samples": 4},
    )
    together = resolve_search(study.search_together())
    assert len(together.search.groups) == 1
    assert together.factors[0].names == ("small", "large")
    assert len(resolve_search(study).search.groups) == 2


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "grid"),
        ({"patch_size": [14], "seed": [0]}, "grid"),
        ({"dataset": ["derma"]}, "grid-dermamnist"),
        ({"dataset": ["derma", "BreastMNIST"]}, "grid-breastmnist-dermamnist"),
        ({"dataset": ["derma"], "epochs": [1]}, "grid-dermamnist-epochs1"),
        ({"dataset": ["derma", "breast", "blood", "retina"]}, "grid"),
        ({"lr": [1e-3, 1e-4]}, "grid-lr0.001_0.0001"),
    ],
)
def test_a_changed_study_has_a_run_folder_of_its_own(changes: dict[str, list[object]], name: str) -> None:
    original = load_study("grid")
    assert default_run_name(original.override(changes), original) == name


def test_other_factors_and_long_names_have_run_folders_of_their_own(tmp_path: Path) -> None:
    original = load_study("grid")
    varied = original.override({"model": ["test_vit", "test_vit2"]})
    assert default_run_name(varied.override_compare(["model"]), original) == "grid-by-model"
    own = str(make_images(tmp_path / ("my lesions " * 8 + ".npz")))
    name = default_run_name(original.override({"dataset": [own]}), original)
    assert name.startswith("grid-my_lesions_")
    assert len(name) == 64
