"""Two runs side by side: cell by cell, with what differs, or why there is nothing to compare."""

import shutil

import pandas as pd
import pytest

from raypatch.analysis.compare import compare_runs

from made_runs import made_configs, write_run

DATASETS = ["breastmnist", "retinamnist", "vesselmnist3d", "adrenalmnist3d"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    configs = made_configs(DATASETS, [14, 4, 2, 1], 2, epochs=4)
    return write_run(tmp_path_factory.mktemp("runs") / "study", configs, images=80)


def test_same_trials_do_not_differ(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    found = compare_runs(run, copy, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "compare.csv")
    assert len(table) == 16
    assert set(table["p"]) == {1.0}
    assert "The recipes of the two runs are the same." in found.text


def test_runs_are_paired_cell_by_cell_and_the_recipe_difference_is_named(run, tmp_path):
    other = write_run(tmp_path / "other", made_configs(["breastmnist"], [14, 4], 3, lr=3e-4, epochs=4), images=80)
    found = compare_runs(run, other, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "compare.csv")
    assert list(table["patch_size"]) == [14, 4]
    assert list(table["seeds_second"]) == [3, 3]
    assert "- lr: 0.0001 in study; 0.0003 in other." in found.text
    assert "14 cells are in study alone" in found.text
    assert table["p"].notna().all()


def test_other_test_images_are_not_tested_but_said(run, tmp_path):
    other = write_run(tmp_path / "other", made_configs(["breastmnist"], [14], 2, lr=3e-4), images=60)
    assert "hold different test images; not tested" in compare_runs(run, other, tmp_path / "out").text


def test_nothing_in_common_is_refused(run, tmp_path):
    other = write_run(tmp_path / "other", made_configs(["pneumoniamnist"], [14], 1), images=40)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_runs(run, other)


def test_unknown_metric_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="unknown metric 'f1'"):
        compare_runs(run, write_run(tmp_path / "other", []), metric="f1")


def test_a_setting_that_the_runs_do_not_share_is_named(run, tmp_path):
    models = ("vit_tiny_patch16_224", "vit_base_patch16_224")
    configs = [c for model in models for c in made_configs(["breastmnist"], [14], 1, model=model)]
    other = write_run(tmp_path / "other", configs, images=80)
    with pytest.raises(
        ValueError, match="breastmnist in common, but nothing to compare there: model vit_small"
    ) as error:
        compare_runs(run, other, tmp_path / "out")
    assert "patch size and" not in str(error.value)


def test_runs_that_compare_other_things_are_compared_cell_by_cell(run, tmp_path):
    configs = [c for m in ("finetune", "linear_probe") for c in made_configs(["breastmnist"], [14], 2, method=m)]
    other = write_run(tmp_path / "other", configs, images=80)
    found = compare_runs(run, other, tmp_path / "out")
    table = pd.read_csv(found.folder / "compare.csv")
    assert list(table["method"]) == ["finetune"]
    assert list(table["patch_size"]) == [14]
