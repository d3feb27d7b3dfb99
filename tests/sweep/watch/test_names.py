"""Trials are named by what tells them apart, wherever a sweep is watched."""

import io
from pathlib import Path

from rich.console import Console

from raypatch.config import RunOptions
from raypatch.results import DatasetFacts, SweepPaths, TrialResult
from raypatch.study import Study
from raypatch.sweep.record import make_record
from raypatch.sweep.session import ExecutorOptions
from raypatch.sweep.watch.display import LiveDisplay
from raypatch.sweep.watch.names import what_varies
from raypatch.sweep.watch.status import read_status, show_status
from raypatch.sweep.watch.wording import describe_result

from made_runs import STUDIES, made_config, write_failed_trial, write_study


def _record(**content: object):
    return make_record(Study.model_validate({"name": "mine", **content}), "mine", RunOptions(), ExecutorOptions())


def test_fields_that_an_id_lacks_are_named_where_they_differ() -> None:
    grid = {"dataset": ["phantom2d"], "patch_size": [14, 7], "lr": [1e-3, 1e-4], "seed": [0, 1]}
    record = _record(compare=["patch_size"], fixed={"weights": "random"}, grid=grid)
    describe = what_varies(record)
    assert {describe(config) for config in record.trials} == {"lr=0.001", "lr=0.0001"}


def test_a_named_level_stands_for_its_fields() -> None:
    levels = {"small": {"model": "vit_small_patch16_224", "lr": 1e-3}, "tiny, slow": {"model": "vit_tiny_patch16_224"}}
    grid = {"dataset": ["phantom2d"], "patch_size": [14], "recipe": levels, "seed": [0]}
    levels["tiny, slow"]["lr"] = 1e-5
    record = _record(compare=["recipe"], fixed={"weights": "random"}, grid=grid)
    assert [what_varies(record)(config) for config in record.trials] == ["small", "tiny, slow"]


def test_what_a_search_draws_is_named_before_anything_is_drawn() -> None:
    search = {"fields": {"lr": {"loguniform": [1e-5, 1e-2]}}, "samples": 4, "grace_epochs": 1}
    grid = {"dataset": ["phantom2d"], "patch_size": [14], "seed": [0]}
    record = _record(compare=["patch_size"], fixed={"weights": "random", "epochs": 4}, grid=grid, search=search)
    assert record.trials == ()
    drawn = made_config("phantom2d", 14, 0, lr=3e-4)
    assert what_varies(record)(drawn) == "lr=0.0003"


def test_the_live_display_shows_it_in_place_of_the_hash() -> None:
    config = made_config("phantom2d", 7, 0, lr=3e-4)
    display = LiveDisplay(
        [config], {config.trial_id(): 1.0}, done=0, side_by_side=1, varied=lambda config: f"lr={config.lr}"
    )
    display.started(config.trial_id())
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(display.render())
    assert "phantom2d-p7-s0 lr=0.0003 " in console.export_text()


def test_status_shows_it_behind_the_id(tmp_path: Path) -> None:
    study = STUDIES["methods"]
    grid = study["grid"] | {"dataset": ["breastmnist"], "seed": [0]}
    folder = write_study(tmp_path, study | {"grid": grid}, images=0, epochs=2)
    failed = read_status(SweepPaths(folder)).trials[1]
    write_failed_trial(folder, failed.config)
    console = Console(width=120, record=True, file=io.StringIO())
    show_status(read_status(SweepPaths(folder)), console)
    assert f"failed {failed.trial_id} method=linear_probe: torch.OutOfMemoryError" in console.export_text()


def test_a_trial_that_says_one_class_is_told_when_it_ends() -> None:
    facts = DatasetFacts(task="multiclass", dimensions=2, channels=1, classes=("a", "b", "c", "d"), counts=(9, 9, 9))
    val = {"loss": 1.0, "balanced_accuracy": 0.25}
    config = made_config("phantom2d", 7, 0)
    result = TrialResult(trial_id="x", status="ok", val=val, dataset=facts)
    assert ", no better than the most frequent class" in describe_result(config, result)
    better = result.model_copy(update={"val": val | {"balanced_accuracy": 0.26}})
    assert "no better" not in describe_result(config, better)
