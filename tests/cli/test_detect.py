"""`raypatch plan --detect`: the seeds that a difference takes, by the test images of each class."""

import json

import numpy as np
import pytest

from raypatch.cli.detect import as_lines, plan_detection
from raypatch.config import RunOptions, TrialConfig
from raypatch.data.source import load_labels, load_split

from commands import Command
from made_runs import made_configs


def test_the_made_images_are_counted_by_class():
    trials = (
        TrialConfig(dataset="phantom2d", model="test_vit", weights="random", patch_size=7, seed=s) for s in (0, 1, 2)
    )
    (found,) = plan_detection(tuple(trials), RunOptions(device="cpu"), 10, 80, 4)
    assert found.images == np.bincount(load_split("phantom2d", "test").labels).tolist()
    assert found.exact
    assert found.planned == 3
    assert found.seeds > 3
    assert 10 < found.least < 25


def test_a_dataset_without_its_file_counts_as_evenly_divided(tmp_path):
    trials = tuple(made_configs(["breastmnist"], [14], 1))
    found = plan_detection(trials, RunOptions(device="cpu", data_dir=tmp_path), 3, 80, 4)
    assert found[0].images == [78, 78]
    said = as_lines(found, 3, 80, 4)
    assert "about 156 test images, classes taken as equally frequent" in said
    assert "too few test images for any number of seeds" in said
    assert "one seed shows nothing" in said


def test_labels_alone_are_those_of_the_split():
    np.testing.assert_array_equal(load_labels("phantom3d", "test"), load_split("phantom3d", "test").labels)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_says_it_beside_the_costs(as_json, raypatch: Command):
    words = ["plan", "demo", "--dataset", "phantom2d", "--patch-size", "7", "--device", "cpu", "--detect", "5"]
    code, out, _ = raypatch(*words, *(["--json"] if as_json else []))
    assert code == 0
    if as_json:
        assert json.loads(out)["detect"][0]["dataset"] == "phantom2d"
    else:
        assert "A difference of 5 points of balanced accuracy" in out
