"""What lies in run folders becomes frames; what cannot be used is reported, never dropped in silence."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from raypatch.analysis.frames.columns import describe_columns
from raypatch.analysis.frames.load import (
    UnusableResultWarning,
    load_epochs,
    load_study,
    load_trials,
    missing_trials,
)
from raypatch.analysis.statistics.stacks import MisalignedError, load_predictions, load_stack
from raypatch.config import TrialConfig
from raypatch.results import DamagedFileError, SweepPaths, write_predictions
from raypatch.tasks import find_task

from made_runs import made_config, made_configs, write_failed_trial, write_run, write_sweep, write_trial


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    configs = made_configs(["breastmnist", "vesselmnist3d"], [14, 7], 2, epochs=3)
    return write_run(tmp_path_factory.mktemp("runs") / "small", configs)


@pytest.fixture
def own_copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def test_one_row_per_trial_with_every_documented_column(run):
    trials = load_trials(run)
    assert len(trials) == 8
    assert set(TrialConfig.model_fields) < set(trials.columns)
    described = describe_columns(trials)
    assert list(described["column"]) == list(trials.columns)
    assert all(described["meaning"].str.len() > 5)
    assert set(trials["run"]) == {"small"}
    assert set(trials["status"]) == {"ok"}


def test_scores_are_those_of_the_predictions(run):
    row = load_trials(run).iloc[0]
    found = load_predictions(run, row["trial_id"], "test")
    assert find_task(row["task"]).score(found.probability, found.label)["auc"] == pytest.approx(row["test_auc"])


def test_epochs_carry_their_trial(run):
    epochs = load_epochs(load_trials(run))
    assert len(epochs) == 8 * 3
    assert epochs.groupby("trial_id")["epoch"].apply(list).map(lambda e: e == [1, 2, 3]).all()


def test_reading_needs_neither_ray_nor_torch():
    code = "import sys, raypatch.analysis.frames.load; print({'ray', 'torch'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_planned_trials_without_result_are_listed_with_their_state(tmp_path):
    done, failed, begun, planned = made_configs(["breastmnist"], [14], 4, epochs=2)
    write_sweep(tmp_path, [done, failed, begun, planned])
    write_trial(tmp_path, done)
    write_failed_trial(tmp_path, failed)
    SweepPaths(tmp_path).trial(begun.trial_id()).folder.mkdir()
    study = load_study(tmp_path)
    assert dict(zip(study.missing["seed"], study.missing["state"], strict=True)) == {
        1: "failed",
        2: "unfinished",
        3: "not started",
    }
    assert missing_trials(tmp_path).equals(study.missing)
    by_status = study.trials.set_index("status")
    assert math.isnan(by_status.loc["failed", "test_auc"])
    assert by_status.loc["failed", "error"] == "torch.OutOfMemoryError: made up"
    assert not study.problems


def test_trials_of_an_earlier_command_still_count(own_copy):
    write_sweep(own_copy, made_configs(["breastmnist"], [4], 1))
    study = load_study(own_copy)
    assert len(study.trials) == 8
    assert list(study.missing["level"]) == ["4"]


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 99}', '{"trial_id": 3}', "[]"])
def test_damaged_or_newer_result_is_a_problem_and_leaves_the_others(own_copy, content):
    trial = SweepPaths(own_copy).trial_folders()[0]
    trial.result.write_text(content)
    study = load_study(own_copy)
    assert len(study.trials) == 7
    assert len(study.problems) == 1
    assert str(trial.result) in str(study.problems[0])
    assert list(study.missing["state"]) == ["damaged"]
    with pytest.warns(UnusableResultWarning, match="damaged|schema version 99"):
        load_trials(own_copy)


def test_altered_config_is_a_problem(own_copy):
    trial = SweepPaths(own_copy).trial_folders()[0]
    content = json.loads(trial.config.read_text())
    trial.config.write_text(json.dumps(content | {"lr": 0.5}))
    study = load_study(own_copy)
    assert len(study.trials) == 7
    assert "different trials" in str(study.problems[0])


def test_damaged_plan_is_a_problem_and_leaves_the_trials(own_copy):
    SweepPaths(own_copy).record.write_text("{")
    study = load_study(own_copy)
    assert len(study.trials) == 8
    assert "missing cannot be listed" in str(study.problems[0])


def test_same_trial_in_two_runs_counts_once_and_the_finished_one_first(run, tmp_path):
    config = made_config("breastmnist", 14, 0, epochs=3)
    write_failed_trial(tmp_path / "other", config)
    for runs in ((run, tmp_path / "other"), (tmp_path / "other", run)):
        study = load_study(*runs)
        assert len(study.trials) == 8
        assert set(study.trials["status"]) == {"ok"}
        assert any("the same trial" in str(problem) for problem in study.problems)


def test_no_run_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no run folder"):
        load_trials(tmp_path)
    with pytest.raises(ValueError, match="no run folder given"):
        load_trials()


def test_stack_aligns_by_index(own_copy):
    trials = load_trials(own_copy).query("dataset == 'breastmnist'")
    whole = load_stack(trials, "test")
    assert whole.probability.shape == (4, 156, 2)
    row = trials.iloc[1]
    splits = {split: load_predictions(own_copy, row["trial_id"], split) for split in ("val", "test")}
    order = np.random.default_rng(0).permutation(156)
    test = splits["test"]
    splits["test"] = type(test)(test.index[order], test.label[order], test.probability[order])
    write_predictions(SweepPaths(own_copy).trial(row["trial_id"]).predictions, splits)
    np.testing.assert_array_equal(load_stack(trials, "test").probability, whole.probability)


@pytest.mark.parametrize("damage", ["label", "index"])
def test_misaligned_predictions_are_refused(own_copy, damage):
    trials = load_trials(own_copy).query("dataset == 'breastmnist'")
    trial_id = trials["trial_id"].iloc[2]
    found = load_predictions(own_copy, trial_id, "test")
    label, index = found.label.copy(), found.index.copy()
    if damage == "label":
        label[5] = 1 - label[5]
    else:
        index[5] = 9999
    changed = type(found)(index, label, found.probability)
    write_predictions(SweepPaths(own_copy).trial(trial_id).predictions, {"test": changed})
    with pytest.raises(MisalignedError, match=trial_id):
        load_stack(trials, "test")


@pytest.mark.parametrize("damage", ["shorter", "cut", "gone", "twice", "label"])
def test_truncated_or_inconsistent_predictions_are_refused(own_copy, damage):
    trials = load_trials(own_copy).query("dataset == 'breastmnist'")
    trial_id = trials["trial_id"].iloc[2]
    path = SweepPaths(own_copy).trial(trial_id).predictions
    found = load_predictions(own_copy, trial_id, "test")
    if damage == "shorter":
        write_predictions(path, {"test": type(found)(found.index[:-1], found.label[:-1], found.probability[:-1])})
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "gone":
        path.unlink()
    elif damage == "twice":
        write_predictions(path, {"test": type(found)(found.index // 2, found.label, found.probability)})
    else:
        write_predictions(path, {"test": type(found)(found.index, found.label + 1, found.probability)})
    with pytest.raises(DamagedFileError, match=r"predictions\.npz"):
        load_stack(trials, "test")


@pytest.mark.slow
def test_reading_costs_in_proportion_to_the_trials_and_little(tmp_path):
    seconds = {}  # of processor time, which other load on the machine does not change
    for count in (1_000, 10_000):
        write_run(tmp_path / str(count), made_configs(["breastmnist"], [14], count), images=0)
        code = (
            "import sys, time, resource; from raypatch.analysis.frames.load import load_trials;"
            "start = time.process_time();"
            "rows = len(load_trials(sys.argv[1]));"
            "print(rows, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)"
        )
        command = [sys.executable, "-c", code, str(tmp_path / str(count))]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        rows, seconds[count], gigabytes = map(float, answer.stdout.split())
        assert rows == count
        assert gigabytes < 2
    assert seconds[10_000] < 10
    assert seconds[10_000] < 20 * seconds[1_000]


def test_every_score_column_of_a_frame_is_explained():
    frame = pd.DataFrame(columns=["trial_id", "val_auc", "test_auc", "test_images", "backbone size"])
    meanings = describe_columns(frame).set_index("column")["meaning"]
    assert meanings["val_auc"] == "auc on the validation split, best epoch; NaN where there is none"
    assert meanings["test_auc"] == "auc on the test split, best epoch; NaN where there is none"
    assert meanings["test_images"] == "images in the test split"
    assert meanings["backbone size"] == "level of backbone size"
