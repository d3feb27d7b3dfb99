"""TensorBoard's event files: every epoch once, whatever happened in between."""

import contextlib
import resource
from pathlib import Path

import pytest

from raypatch.results import EpochRow, SweepPaths, TrialPaths, append_epoch, read_epochs, write_epochs
from raypatch.sweep.guard import run_guarded
from raypatch.sweep.watch.tensorboard import EventFile, tag_of
from raypatch.training.loop import Interrupted

from tiny import epoch_row, make_images, tiny_trial


def _charts(paths: TrialPaths) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a trial: per chart, the value at each step; a step that comes twice is an error."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(paths.folder)).Reload()
    charts = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        charts[tag] = {point.step: point.value for point in points}
        assert len(charts[tag]) == len(points), tag
        assert [point.wall_time for point in points] == sorted(point.wall_time for point in points)
    return charts


def _expected(paths: TrialPaths) -> dict[str, dict[int, object]]:
    expected: dict[str, dict[int, object]] = {}
    for row in read_epochs(paths.epochs):
        for name, value in row.flat().items():
            if name != "epoch":
                expected.setdefault(tag_of(name), {})[row.epoch] = pytest.approx(value, nan_ok=True)
    return expected


def test_tensorboard_shows_every_epoch_once_after_an_interruption(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "images.npz"), epochs=4)
    sweep = SweepPaths(tmp_path / "run")
    paths = sweep.trial(config.trial_id())

    def interrupt(row: EpochRow) -> None:
        if row.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_guarded(config, sweep, options, on_epoch=interrupt, should_stop=lambda: False)
    assert _charts(paths) == _expected(paths)
    run_guarded(config, sweep, options, on_epoch=bool, should_stop=lambda: False)
    assert len(paths.event_files()) == 1
    assert _charts(paths) == _expected(paths)
    assert set(_charts(paths)["val/loss"]) == {1, 2, 3, 4}


def test_epochs_that_are_repeated_replace_those_on_disk(tmp_path: Path) -> None:
    paths = TrialPaths(tmp_path)
    for rows in (
        [epoch_row(1), epoch_row(2, 0.4), epoch_row(3, 0.3)],
        [epoch_row(1), epoch_row(2, 0.2)],
    ):  # back to the checkpoint of epoch 1
        write_epochs(paths.epochs, rows[:1])
        with contextlib.closing(EventFile(paths)) as events:
            for row in rows[1:]:
                append_epoch(paths.epochs, row)
                events.epoch(row)
        assert _charts(paths)["val/loss"] == {row.epoch: pytest.approx(row.val["loss"]) for row in rows}


def test_a_full_disk_ends_the_events_and_not_the_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = TrialPaths(tmp_path)
    append_epoch(paths.epochs, epoch_row(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.closing(EventFile(paths)) as events:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))  # no file may grow beyond 16 bytes
        try:
            events.epoch(epoch_row(1))
            events.epoch(epoch_row(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [record.message[:39] for record in caplog.records] == ["no TensorBoard events from epoch 1 on: "]
