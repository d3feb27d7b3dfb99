"""Run folders listed, and freed of what they can do without."""

import os
from pathlib import Path

import pytest

from raypatch.results import SweepPaths
from raypatch.run_folders import find_removable, list_runs, word_bytes
from raypatch.storage.files import hold_lock

from commands import Command
from made_runs import made_configs, write_run, write_sweep, write_trial


def _finished_run(folder: Path) -> SweepPaths:
    """Two patch sizes, two seeds, each trial with weights and an event file."""
    paths = SweepPaths(write_run(folder, made_configs(["breastmnist"], [14, 7], 2), images=20))
    for trial in paths.trial_folders():
        trial.best_weights.write_bytes(b"w" * 1000)
        (trial.folder / "events.out.tfevents.1").write_bytes(b"e" * 10)
    return paths


def test_run_folders_are_listed_with_state_question_size_and_age(raypatch: Command, tmp_path: Path) -> None:
    _finished_run(tmp_path / "runs" / "done")
    configs = made_configs(["breastmnist"], [14, 7], 1)
    write_sweep(tmp_path / "runs" / "half", configs)
    write_trial(tmp_path / "runs" / "half", configs[0], images=20)
    (tmp_path / "runs" / "no run").mkdir()
    code, out, _ = raypatch("runs")
    assert code == 0
    by_name = {line.split()[0]: line for line in out.splitlines()}
    assert set(by_name) == {"done", "half"}
    assert "4 done" in by_name["done"]
    assert "stopped, 1/2 done" in by_name["half"]
    assert all("Which patch size?" in line and "ago" in line for line in by_name.values())


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    for name, age in (("old", 5000), ("new", 50)):
        write_sweep(tmp_path / name, made_configs(["breastmnist"], [14], 1))
        record = tmp_path / name / "sweep.json"
        when = record.stat().st_mtime - age
        os.utime(record, (when, when))
    assert [run.name for run in list_runs(tmp_path)] == ["new", "old"]


def test_a_running_sweep_is_said_to_run(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", made_configs(["breastmnist"], [14], 1))
    with hold_lock(tmp_path / "a" / ".lock"):
        assert list_runs(tmp_path)[0].state.startswith("running, 0/1")


def test_no_folder_is_explained(raypatch: Command) -> None:
    code, _, err = raypatch("runs")
    assert code == 2
    assert "there is no folder runs" in err
    assert raypatch("clean", "runs/absent")[0] == 2


def test_clean_keeps_the_best_weights_of_each_level_and_all_results(raypatch: Command, tmp_path: Path) -> None:
    paths = _finished_run(tmp_path / "runs" / "a")
    before = sorted(path for path in paths.folder.rglob("*") if path.is_file())
    code, out, _ = raypatch("clean", "runs/a", "--yes")
    assert code == 0
    assert "2 weight files" in out
    assert "4 event files" in out
    assert "freed 2.0 kB" in out
    gone = [path.name for path in before if not path.exists()]
    assert sorted(gone) == ["best.safetensors"] * 2 + ["events.out.tfevents.1"] * 4
    kept = {trial.folder.name.rsplit("-s", 1)[0] for trial in paths.trial_folders() if trial.best_weights.exists()}
    assert kept == {"breastmnist-p14", "breastmnist-p7"}
    assert "nothing to remove" in raypatch("clean", "runs/a", "--yes")[1]


def test_clean_asks_first(raypatch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _finished_run(tmp_path / "runs" / "a")
    monkeypatch.setattr("typer.confirm", lambda text: False)
    code, out, _ = raypatch("clean", "runs/a")
    assert code == 0
    assert "nothing was removed" in out
    assert len(find_removable(paths.folder).files) == 6


def test_clean_leaves_a_trial_that_is_not_over_alone(tmp_path: Path) -> None:
    paths = _finished_run(tmp_path / "a")
    trial = paths.trial_folders()[0]
    trial.result.unlink()
    assert not any(path.is_relative_to(trial.folder) for path in find_removable(paths.folder).files)


def test_clean_refuses_a_folder_in_use(raypatch: Command, tmp_path: Path) -> None:
    paths = _finished_run(tmp_path / "runs" / "a")
    with hold_lock(paths.lock):
        code, _, err = raypatch("clean", "runs/a", "--yes")
    assert code == 2
    assert "is in use" in err
    assert len(find_removable(paths.folder).files) == 6


def test_sizes_are_words() -> None:
    assert [word_bytes(size) for size in (320, 5_200, 5_200_000, 1_300_000_000)] == [
        "320 B",
        "5.2 kB",
        "5.2 MB",
        "1.3 GB",
    ]
