"""A run folder of schema 1, half finished, goes on to the same bits as one that was never interrupted."""

import json
from pathlib import Path

import pytest

from raypatch.config import RunOptions
from raypatch.results import EpochRow, SweepPaths, TrialPaths, read_epochs, read_result, read_sweep
from raypatch.study import Study
from raypatch.sweep.run import ExecutorOptions, resume_sweep, run_sweep
from raypatch.trial import train_trial

from tiny import make_images, read_figures


class _Killed(BaseException):
    """Stands for a process that ends here."""


def _run(data: Path, folder: Path) -> SweepPaths:
    fixed = {"dataset": str(data), "model": "test_vit", "weights": "random", "image_size": 8, "epochs": 3, "lr": 1e-3}
    study = Study.model_validate({"name": "t", "fixed": fixed, "grid": {"patch_size": [8, 4], "seed": [0, 1]}})
    run_sweep(study, folder, RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return SweepPaths(folder)


def _interrupt(sweep: SweepPaths) -> None:
    """Leave one trial finished, one after its second epoch, and two not begun."""
    record = read_sweep(sweep.record)
    files = {name: Path(path) for name, path in record.options["files"].items()}
    _, half, *unbegun = record.trials
    for config in (half, *unbegun):
        for path in sweep.trial(config.trial_id()).folder.iterdir():
            path.unlink()
    for config in unbegun:
        sweep.trial(config.trial_id()).folder.rmdir()

    def die(row: EpochRow) -> None:
        if row.epoch == 2:
            raise _Killed

    with pytest.raises(_Killed):
        train_trial(half, sweep.trial(half.trial_id()), RunOptions(device="cpu", threads=1, files=files), on_epoch=die)


def _turn_into_schema_1(sweep: SweepPaths) -> None:
    """Write the records as the release before schema 2 did."""
    record = json.loads(sweep.record.read_text())
    for name in ("factors", "levels", "metric", "expect"):
        del record[name]
    record |= {"schema_version": 1, "space": record.pop("study")}
    record["trials"] = [_config_1(config) for config in record["trials"]]
    sweep.record.write_text(json.dumps(record))
    for trial in sweep.trial_folders():
        _turn_trial_into_schema_1(trial)


def _turn_trial_into_schema_1(trial: TrialPaths) -> None:
    lines = []
    for row in read_epochs(trial.epochs):
        lines.append(json.dumps(row.flat()) + "\n")
    trial.epochs.write_text("".join(lines))
    if trial.config.exists():
        trial.config.write_text(json.dumps(_config_1(json.loads(trial.config.read_text()))))
    if trial.result.exists():
        trial.result.write_text(json.dumps(json.loads(trial.result.read_text()) | {"schema_version": 1}))


def _config_1(config: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if name != "task"}


def test_a_half_finished_run_of_schema_1_ends_bit_equal(tmp_path: Path) -> None:
    data = make_images(tmp_path / "own.npz")
    straight = read_figures(_run(data, tmp_path / "straight"))
    sweep = _run(data, tmp_path / "old")
    _interrupt(sweep)
    _turn_into_schema_1(sweep)
    assert '"val_auc"' in next(trial for trial in sweep.trial_folders() if not trial.result.exists()).epochs.read_text()
    finished = [trial.folder.name for trial in sweep.trial_folders() if trial.result.exists()]
    untouched = sweep.trial(finished[0]).result.read_bytes()
    resume_sweep(tmp_path / "old", {})
    assert read_figures(sweep) == straight
    assert sweep.trial(finished[0]).result.read_bytes() == untouched, "what was finished is not run again"
    assert all(read_result(trial.result) for trial in sweep.trial_folders())
