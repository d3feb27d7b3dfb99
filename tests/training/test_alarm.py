"""The alarm of an epoch whose validation predictions are no answer, and where it is shown."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from raypatch.sweep.watch.display import LiveDisplay
from raypatch.tasks import find_task
from raypatch.training.evaluate import find_alarm, score_logits

from tiny import epoch_row, make_images, tiny_trial

LABELS = torch.tensor([0, 0, 0, 1, 1, 2])


def alarm(logits, labels=LABELS, task="multiclass"):
    found, logits = find_task(task), torch.as_tensor(np.array(logits), dtype=torch.float32)
    return find_alarm(logits, labels, found, score_logits(logits, labels, found, final=False))


def test_one_class_for_all_images_is_told():
    assert alarm([[3, 1, 0]] * 6) == "one class only"


def test_as_many_right_as_the_most_frequent_class_is_told():
    assert alarm(np.eye(3)[[1, 1, 1, 0, 0, 2]] * 4) == "no better than the most frequent class"


def test_better_predictions_raise_no_alarm():
    assert alarm(np.eye(3)[[0, 0, 0, 1, 1, 0]] * 4) is None


@pytest.mark.parametrize(("logits", "told"), [([[-1, 2]] * 4, "one class only"), ([[1, -1], [-1, 1]] * 2, None)])
def test_several_labels_are_asked_one_by_one(logits, told):
    labels = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]])
    assert alarm(logits, labels, "multilabel") == told


def test_a_validation_split_of_one_class_raises_none():
    logits = torch.tensor([[3.0, 1.0, 0.0]] * 3)
    assert (
        find_alarm(logits, torch.zeros(3, dtype=torch.int64), find_task("multiclass"), {"balanced_accuracy": 1}) is None
    )


def test_the_live_display_shows_it_and_the_epoch_keeps_it(tmp_path):
    config, _ = tiny_trial(make_images(tmp_path / "own.npz"))
    name = config.trial_id()
    display = LiveDisplay([config], {name: 10.0}, done=0, side_by_side=1)
    display.started(name)
    row = epoch_row(1, alarm="one class only")
    display.epoch(name, row)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(display.render())
    assert "one class only: " in console.export_text()
    assert "alarm" not in row.flat()
