"""Checkpoints are written beside the training, seldom where epochs are short, and never what came later."""

import errno
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from raypatch.results import TrialPaths
from raypatch.training.checkpoints import writer
from raypatch.training.checkpoints.checkpoint import Progress, Tensors, load_tensors, save_tensors
from raypatch.training.checkpoints.writer import CheckpointWriter


class _Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class _Training:
    """A model whose only weight is the number of the epoch, and what was written of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths, self.clock = TrialPaths(folder), _Clock()
        monkeypatch.setattr(writer, "time", self.clock)
        self.model = nn.Linear(1, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def evaluate(self, kept_by: CheckpointWriter, epoch: int, *, best: int, last: bool = False) -> None:
        nn.init.constant_(self.model.weight, epoch)
        kept_by.keep(self.model, self.optimizer, Progress(epoch, best, 0.5), is_over=last)

    def epochs_written(self, seconds: float, count: int) -> list[int]:
        """Epochs of so many seconds; after which of them there is a new checkpoint."""
        found = []
        with CheckpointWriter(self.paths) as kept_by:
            for epoch in range(1, count + 1):
                self.clock.now += seconds
                self.evaluate(kept_by, epoch, best=1, last=epoch == count)
                kept_by.wait()
                stored = load_tensors(self.paths.checkpoint)
                if stored is not None and stored[1].epoch == epoch:
                    found.append(epoch)
        return found


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Training:
    return _Training(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5.0, [1, 13, 16]), (25.0, [1, 3, 5, 7, 9, 11, 13, 15, 16]), (40.0, list(range(1, 17)))],
)
def test_no_more_than_a_minute_or_an_epoch_is_lost(training: _Training, seconds: float, expected: list[int]) -> None:
    assert training.epochs_written(seconds, 16) == expected


def test_training_goes_on_while_a_checkpoint_is_written(training: _Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is written is the state as it was."""
    may_write = threading.Event()

    def slow(path: Path, tensors: Tensors, progress: Progress) -> None:
        assert may_write.wait(60)
        save_tensors(path, tensors, progress)

    monkeypatch.setattr(writer, "save_tensors", slow)
    with CheckpointWriter(training.paths) as kept_by:
        training.evaluate(kept_by, 1, best=1)
        assert not training.paths.checkpoint.exists()
        nn.init.constant_(training.model.weight, 2)
        may_write.set()
    for path, name in ((training.paths.checkpoint, "model.weight"), (training.paths.best_weights, "weight")):
        stored = load_tensors(path)
        assert stored is not None
        assert stored[0][name].item() == 1


def test_best_weights_that_have_no_file_yet_are_in_the_checkpoint(
    training: _Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two writes must not lose them."""
    with CheckpointWriter(training.paths) as kept_by:
        training.evaluate(kept_by, 1, best=1)
        training.evaluate(kept_by, 2, best=2)
        kept_by.wait()
        training.clock.now = 61
        training.evaluate(kept_by, 3, best=2)
    checkpoint, best = load_tensors(training.paths.checkpoint), load_tensors(training.paths.best_weights)
    assert checkpoint is not None
    assert best is not None
    assert checkpoint[0]["model.weight"].item() == 3
    assert checkpoint[0]["best.weight"].item() == best[0]["weight"].item() == 2
    assert best[1].epoch == checkpoint[1].best_epoch == 2


@pytest.mark.parametrize("ends", [False, True])
def test_a_full_disk_is_told(training: _Training, monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    """At the next evaluation, or at the end of the training."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def train() -> None:
        with CheckpointWriter(training.paths) as kept_by:
            training.evaluate(kept_by, 1, best=1)
            if not ends:
                kept_by.wait()
                pytest.fail("the disk was full")

    monkeypatch.setattr(writer, "save_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        train()
