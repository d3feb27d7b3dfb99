"""Models that are no better than always saying the most frequent class are marked wherever they are shown."""

import re

import numpy as np
import pytest

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import prepare_report
from raypatch.analysis.show.tables.comparison import ensembles_table
from raypatch.analysis.show.tables.scores import NO_BETTER, main_table
from raypatch.results import (
    Predictions,
    SweepPaths,
    read_config,
    read_predictions,
    read_result,
    write_json,
    write_predictions,
)
from raypatch.tasks import find_metric, find_task
from raypatch.tasks.majority import majority_score, says_one_class

from made_runs import made_configs, write_run

BALANCED_ACCURACY = find_metric("balanced_accuracy")


def say_one_class(folder, patch_size, *, seeds=(0, 1)):
    """Let every trial of a patch size predict the frequencies of the classes, whatever the image."""
    for paths in SweepPaths(folder).trial_folders():
        config, result = read_config(paths.config), read_result(paths.result)
        if config.patch_size != patch_size or config.seed not in seeds:
            continue
        splits, scores = {}, {}
        for split in ("val", "test"):
            known = read_predictions(paths.predictions, split)
            frequency = np.bincount(known.label, minlength=known.probability.shape[1]) / len(known.label)
            same = np.tile(frequency.astype(np.float32), (len(known.label), 1))
            splits[split] = Predictions(known.index, known.label, same)
            scores[split] = find_task(result.dataset.task).score(same, known.label)
        write_predictions(paths.predictions, splits)
        write_json(paths.result, result.model_copy(update=scores))


@pytest.mark.parametrize(("task", "classes", "least"), [("binary", 2, 1 / 2), ("multiclass", 4, 1 / 4)])
def test_always_the_most_frequent_class_has_one_over_the_classes(task, classes, least):
    label = np.repeat(np.arange(classes), np.arange(classes) + 1)
    task = find_task(task)
    assert majority_score(label, task, classes, BALANCED_ACCURACY) == pytest.approx(least)
    assert majority_score(label, task, classes, find_metric("accuracy")) == pytest.approx(classes / len(label))


def test_with_several_labels_each_is_said_as_most_images_have_it():
    label = np.array([[0, 1, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    task = find_task("multilabel")
    assert majority_score(label, task, 3, BALANCED_ACCURACY) == pytest.approx(1 / 2)
    assert majority_score(label, task, 3, find_metric("accuracy")) == pytest.approx((0.8 + 0.8 + 0.6) / 3)


def test_one_class_is_told_from_two():
    task, label = find_task("multiclass"), np.array([0, 1, 2])
    sure = np.eye(3, dtype=np.float32)
    assert says_one_class(sure[[1, 1, 1]], label, task)
    assert not says_one_class(sure[[1, 1, 0]], label, task)


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("runs") / "made", made_configs(["breastmnist"], [14, 7, 4], 2, epochs=2))
    say_one_class(run, 7)
    say_one_class(run, 4, seeds=[1])
    return conclude(load_study(run), resamples=50)


def test_levels_that_are_no_better_are_marked_in_the_tables(findings):
    rows = {row[1].text: row for row in main_table(findings).blocks[0]}
    assert all(NO_BETTER in cell.text for cell in rows["7"][4:7])
    assert not any(NO_BETTER in cell.text for cell in rows["14"])
    assert NO_BETTER in main_table(findings).note
    for row in ensembles_table(findings).blocks[0][1:]:
        assert not any(NO_BETTER in cell.text for cell in row)


def test_one_seed_of_two_that_says_one_class_is_counted(findings):
    cells = findings.cells.set_index("level")
    assert cells.loc["7", ["no_better", "one_class"]].tolist() == [True, 2]
    assert cells.loc["4", "one_class"] == 1
    assert cells.loc["14", ["no_better", "one_class"]].tolist() == [False, 0]


def test_report_says_it_first_and_in_the_answer(tmp_path):
    run = write_run(tmp_path / "made", made_configs(["breastmnist"], [14, 7], 2, epochs=2))
    say_one_class(run, 14)
    report = prepare_report([run], 50)
    said = "Not shown to be better than always saying the most frequent class: patch size 14 on breastmnist."
    assert said in report.notes
    assert "The same class for every test image: patch size 14 on breastmnist (2 of 2 seeds)." in report.notes
    assert said in report.statements[0].support
    assert re.search(r"\| 14 .*†", report.text)


def test_a_task_without_balanced_accuracy_is_not_judged(findings):
    from raypatch.analysis.answer.majority import compare_with_majority

    metrics = [find_metric("accuracy")]
    assert compare_with_majority({}, find_task("binary"), metrics, findings.evidence.intervals).empty
