"""The disk schema: what is written is read back, what is damaged is named, what is locked stays locked."""

import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from raypatch.config import TrialConfig
from raypatch.results import (
    SCHEMA_VERSION,
    DamagedFileError,
    EpochRow,
    NewerSchemaError,
    Predictions,
    SweepPaths,
    TrialResult,
    append_epoch,
    read_config,
    read_epochs,
    read_predictions,
    read_result,
    read_sweep,
    write_config,
    write_json,
    write_predictions,
)
from raypatch.storage.files import LockedError, hold_lock, remove_leftovers, write_atomically


def _row(epoch: int, auc: float = 0.5) -> EpochRow:
    return EpochRow(
        epoch=epoch,
        train_loss=1.0,
        val={"loss": 1.0, "accuracy": 0.5, "balanced_accuracy": 0.5, "auc": auc},
        lr=1e-4,
        seconds=1.0,
        images_per_second=10.0,
    )


def test_no_epoch_row_holds_a_test_figure() -> None:
    assert not [name for name in EpochRow.model_fields if "test" in name]


def test_epochs_come_back_with_undefined_figures(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    append_epoch(path, _row(1))
    append_epoch(path, _row(2, auc=math.nan))
    rows = read_epochs(path)
    assert [row.epoch for row in rows] == [1, 2]
    assert math.isnan(rows[1].val["auc"])
    assert "NaN" not in path.read_text()


def test_half_last_line_is_dropped_and_a_damaged_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    append_epoch(path, _row(1))
    append_epoch(path, _row(2))
    path.write_text(path.read_text()[:-20])
    assert [row.epoch for row in read_epochs(path)] == [1]
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(DamagedFileError, match="line 1 is damaged"):
        read_epochs(path)


def test_result_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_result(path) is None
    scores = {"loss": 0.5, "accuracy": 0.75, "balanced_accuracy": 0.5, "auc": math.nan}
    write_json(path, TrialResult(trial_id="x", status="ok", epochs=3, best_epoch=2, val=scores, test=scores))
    result = read_result(path)
    assert result is not None
    assert result.best_epoch == 2
    assert result.test is not None
    assert math.isnan(result.test["auc"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"trial_id": "x"}', b'{"trial_id": "x", "status": "great"}'])
def test_damaged_result_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"result.json is damaged .*remove it to run the trial again"):
        read_result(path)


def test_newer_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(f'{{"schema_version": {SCHEMA_VERSION + 1}, "a_new_field": 1}}')
    with pytest.raises(NewerSchemaError, match=r"schema version 3.*install a newer raypatch"):
        read_sweep(path)


def test_config_round_trip_keeps_the_id(tmp_path: Path) -> None:
    config = TrialConfig(dataset="derma", patch_size=4, lr=3e-4)
    write_config(tmp_path / "config.json", config)
    assert read_config(tmp_path / "config.json").trial_id() == config.trial_id()


def test_predictions_round_trip_and_truncation(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    stored = Predictions(np.arange(4), np.array([0, 1, 0, 1]), np.full((4, 2), 0.5, np.float32))
    write_predictions(path, {"val": stored})
    assert read_predictions(path, "val").probability.dtype == np.float32
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_predictions(path, "test")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_predictions(path, "val")


def test_predictions_keep_who_is_on_an_image(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    parts = (np.arange(4), np.array([0, 1, 0, 1]), np.full((4, 2), 0.5, np.float32))
    write_predictions(path, {"val": Predictions(*parts), "test": Predictions(*parts, np.array([0, 0, 1, 1]))})
    assert read_predictions(path, "val").group is None
    group = read_predictions(path, "test").group
    assert group is not None
    assert group.tolist() == [0, 0, 1, 1]


def test_predictions_of_different_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    write_predictions(path, {"val": Predictions(np.arange(3), np.arange(4), np.full((4, 2), 0.5, np.float32))})
    with pytest.raises(DamagedFileError, match="different length"):
        read_predictions(path, "val")


def test_objects_in_predictions_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    bad = np.array([{"a": 1}], dtype=object)
    np.savez(path, val_index=bad, val_label=bad, val_probability=bad)
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_predictions(path, "val")


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.123.tmp").write_bytes(b"half")
    (tmp_path / "last.ckpt").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def _hold(path: Path) -> None:
    with hold_lock(path):
        time.sleep(60)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(path,))
    holder.start()
    try:
        _wait_for(path)
        with pytest.raises(LockedError, match=f"in use by process {holder.pid} on "), hold_lock(path):
            pass
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        with hold_lock(path, wait=True):
            assert path.exists()
        assert not path.exists()
    finally:
        holder.kill()
        holder.join()


def test_trial_folders_are_listed_in_order(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    assert paths.trial_folders() == []
    for name in ("b", "a"):
        paths.trial(name).folder.mkdir(parents=True)
    assert [trial.folder.name for trial in paths.trial_folders()] == ["a", "b"]
