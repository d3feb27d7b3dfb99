"""Run folders of schema 1, which knew patch sizes and four scores alone, go on as if this version had begun them."""

import json
from pathlib import Path
from typing import Any

import pytest

from raypatch.config import RunOptions
from raypatch.results import EpochRow, SweepPaths, read_sweep
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.guard import run_guarded
from raypatch.sweep.record import make_record
from raypatch.sweep.run import resume_sweep, run_sweep
from raypatch.sweep.session import ExecutorOptions
from raypatch.sweep.watch.status import read_status
from raypatch.training.loop import Interrupted

from tiny import make_images, read_figures, tiny_study

LOCAL = ExecutorOptions(executor="local")
OPTIONS = RunOptions(device="cpu", threads=1)


def _change(path: Path, change: Any) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def _make_schema_1(paths: SweepPaths) -> None:
    """Write the files of a run folder as the release with schema 1 wrote them."""

    def age_record(record: dict[str, Any]) -> None:
        record["schema_version"] = 1
        record["space"] = record.pop("study")
        for key in ("factors", "levels", "metric", "expect"):
            del record[key]
        for trial in record["trials"]:
            del trial["task"]

    _change(paths.record, age_record)
    for trial in paths.trial_folders():
        lines = []
        for line in trial.epochs.read_text("utf-8").splitlines():
            row = json.loads(line)
            scores = {f"val_{name}": score for name, score in row.pop("val").items()}
            lines.append(json.dumps(row | scores) + "\n")
        trial.epochs.write_text("".join(lines), "utf-8")
        _change(trial.config, lambda config: config.pop("task"))
        if trial.result.exists():
            _change(trial.result, lambda result: result.update(schema_version=1))


def _half_finished(data: Path, paths: SweepPaths) -> None:
    """Run one of two trials to its end and the other for two of its epochs; then make the folder old."""
    study = tiny_study(data, fixed={"epochs": 4})
    run_sweep(study.override({"patch_size": [8]}), paths.folder, OPTIONS, LOCAL)
    resolved = resolve_trials(study)
    record = make_record(study, paths.folder.name, OPTIONS, LOCAL)
    paths.record.write_text(record.model_dump_json(), "utf-8")

    def interrupt(row: EpochRow) -> None:
        if row.epoch == 2:
            raise Interrupted

    options = OPTIONS.model_copy(update={"files": resolved.files})
    with pytest.raises(Interrupted):
        run_guarded(resolved.trials[1], paths, options, on_epoch=interrupt, should_stop=lambda: False)
    _make_schema_1(paths)


def test_a_half_finished_sweep_of_schema_1_ends_bit_equal(tmp_path: Path) -> None:
    data = make_images(tmp_path / "images.npz")
    paths = SweepPaths(tmp_path / "old")
    _half_finished(data, paths)
    status = read_status(paths)
    assert (status.count("ok"), status.count("stopped"), status.study) == (1, 1, "tiny")
    outcome = resume_sweep(paths.folder, {})
    assert (outcome.ok, outcome.left) == (2, 0)
    run_sweep(tiny_study(data, fixed={"epochs": 4}), tmp_path / "whole", OPTIONS, LOCAL)
    assert read_figures(paths) == read_figures(SweepPaths(tmp_path / "whole"))


def test_a_resumed_folder_of_schema_1_says_what_it_compares(tmp_path: Path) -> None:
    data = make_images(tmp_path / "images.npz")
    folder = tmp_path / "old"
    run_sweep(tiny_study(data), folder, OPTIONS, LOCAL)
    new = read_sweep(SweepPaths(folder).record)
    _make_schema_1(SweepPaths(folder))
    resume_sweep(folder, {})
    record = read_sweep(SweepPaths(folder).record)
    assert record.schema_version == 2
    assert record.factors == new.factors
    assert record.levels == new.levels


def test_a_search_of_schema_1_goes_on(tmp_path: Path) -> None:
    data = make_images(tmp_path / "images.npz")
    folder = tmp_path / "old"
    search = {"fields": {"lr": {"loguniform": [1e-6, 1e-1]}}, "samples": 3, "grace_epochs": 1}
    run_sweep(tiny_study(data, search=search), folder, OPTIONS, LOCAL)
    paths = SweepPaths(folder)
    _make_schema_1(paths)
    _change(paths.record, lambda record: record["search"].pop("names"))
    before = [config.trial_id() for config in read_sweep(paths.record).trials]
    assert resume_sweep(folder, {}).ok == 6
    record = read_sweep(paths.record)
    assert [factor.names for factor in record.factors] == [("8", "4")]
    assert record.levels[before[0]] in (("8",), ("4",))
    assert run_sweep(tiny_study(data, search=search | {"samples": 4}), folder, OPTIONS, LOCAL).ok == 8
    assert [config.trial_id() for config in read_sweep(paths.record).trials][:6] == before


@pytest.mark.parametrize("name", ["sweep.json", "result.json"])
def test_files_of_a_newer_schema_are_not_touched(tmp_path: Path, name: str) -> None:
    """Mixed with readable ones or not: nothing runs, and the message says what to install."""
    data = make_images(tmp_path / "images.npz")
    paths = SweepPaths(tmp_path / "run")
    run_sweep(tiny_study(data), paths.folder, OPTIONS, LOCAL)
    (changed, *_) = paths.folder.rglob(name)
    _change(changed, lambda content: content.update(schema_version=3))
    before = changed.read_bytes()
    for touch in (
        lambda: resume_sweep(paths.folder, {}),
        lambda: run_sweep(tiny_study(data), paths.folder, OPTIONS, LOCAL),
        lambda: read_status(paths),
    ):
        with pytest.raises(ValueError, match=r"schema version 3, this raypatch reads up to 2; install a newer"):
            touch()
    assert changed.read_bytes() == before
