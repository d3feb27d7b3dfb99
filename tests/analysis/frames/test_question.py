"""What runs compare: found in sweep.json, widened by their trials, united over runs, asked anew."""

import pytest

from raypatch.analysis.frames.load import load_study, load_trials
from raypatch.factors import factor_of_axis, factor_of_field

from made_runs import made_configs, write_run, write_study, write_sweep, write_trial

GRID = {"dataset": ["breastmnist"], "method": ["finetune", "linear_probe"], "seed": [0]}
METHODS = {"compare": ["method"], "fixed": {"patch_size": 14}, "grid": GRID}


def test_level_rank_and_kind_stand_beside_each_trial(tmp_path):
    study = METHODS | {"baseline": {"method": "linear_probe"}}
    run = write_study(tmp_path / "run", study, images=0, epochs=2)
    trials = load_trials(run)
    assert list(trials["level"]) == ["finetune", "linear_probe"]
    assert list(trials["level_rank"]) == [0, 1]
    assert set(trials["kind"]) == {"single"}
    (factor,) = load_study(run).factors
    assert factor.baseline == "linear_probe"


def test_a_run_without_a_question_is_a_study_of_patch_size_or_else_of_the_model(tmp_path):
    sizes = write_run(tmp_path / "sizes", made_configs(["breastmnist"], [7, 14], 1), images=0)
    (factor,) = load_study(sizes).factors
    assert (factor.name, factor.names, factor.baseline) == ("patch_size", ("14", "7"), "14")
    models = [c.model_copy(update={"patch_size": None}) for c in made_configs(["breastmnist"], [14], 1, model="a")]
    (factor,) = load_study(write_run(tmp_path / "models", models, images=0)).factors
    assert factor.name == "model"


def test_trials_of_earlier_commands_widen_the_levels(tmp_path):
    configs = made_configs(["breastmnist"], [14, 7], 1)
    write_sweep(tmp_path, configs, factors=[factor_of_field("patch_size", [14, 7])])
    for config in (*configs, *made_configs(["breastmnist"], [28], 1)):
        write_trial(tmp_path, config, images=0)
    (factor,) = load_study(tmp_path).factors
    assert (factor.names, factor.baseline) == (("28", "14", "7"), "28")


def test_a_trial_without_a_level_is_left_out_and_said(tmp_path):
    configs = made_configs(["breastmnist"], [14], 1)
    write_sweep(tmp_path, configs, factors=[factor_of_axis("width", {"small": {"patch_size": 14}})])
    for config in (*configs, *made_configs(["breastmnist"], [28], 1)):
        write_trial(tmp_path, config, images=0)
    results = load_study(tmp_path)
    assert list(results.trials["level"]) == ["small"]
    assert "has none of the levels of width (small)" in str(results.problems[0])


def test_runs_that_compare_the_same_are_united(tmp_path):
    runs = [write_run(tmp_path / str(size), made_configs(["breastmnist"], [size], 1), images=0) for size in (7, 14)]
    (factor,) = load_study(*runs).factors
    assert (factor.names, factor.baseline) == (("14", "7"), "14")


def test_runs_that_compare_other_things_are_refused_with_the_way_out(tmp_path):
    sizes = write_run(tmp_path / "sizes", made_configs(["breastmnist"], [14, 7], 1), images=0)
    methods = write_study(tmp_path / "methods", METHODS, images=0, epochs=2)
    with pytest.raises(ValueError, match="sizes compares patch size; methods compares training method: ask one"):
        load_study(sizes, methods)
    assert [f.name for f in load_study(sizes, methods, compare=["method"]).factors] == ["method"]


def test_levels_of_one_name_that_are_not_the_same_are_refused(tmp_path):
    runs = []
    for size in (14, 7):
        backbones = {"a": {"model": "vit_tiny_patch16_224", "patch_size": size}, "b": {"patch_size": 4}}
        grid = {"dataset": ["breastmnist"], "backbone": backbones}
        runs.append(write_study(tmp_path / str(size), {"compare": ["backbone"], "grid": grid}, images=0, epochs=2))
    with pytest.raises(ValueError, match="the level a of backbone is not the same in all runs"):
        load_study(*runs)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("methd", "there is no such field; use method"),
        ("seed", "repeated over"),
        ("model", "all trials have vit_small_patch16_224; these differ: method"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(tmp_path, name, said):
    run = write_study(tmp_path / "run", METHODS, images=0, epochs=2)
    with pytest.raises(ValueError, match=said):
        load_study(run, compare=[name])
