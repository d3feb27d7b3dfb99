"""Stages in a sweep: parents first, on every executor; a failed one, mended by --retry-failed; kills; the report."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
import yaml
from staged import staged_bits, staged_study

import raypatch.methods.pretrain
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import write_report
from raypatch.config import RunOptions
from raypatch.predict import export_trial, load_exported
from raypatch.results import SweepPaths
from raypatch.run_folders import find_removable
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.cost.estimate import plan_cost
from raypatch.sweep.parents import ready_groups
from raypatch.sweep.plan import plan_sweep
from raypatch.sweep.run import ExecutorOptions, resume_sweep, run_sweep
from raypatch.sweep.watch.running import RunningSweep
from raypatch.sweep.watch.status import read_status, show_status
from raypatch.training.loop import TrialError

from processes import PATIENCE, epochs_on_disk, said, start, wait_for
from tiny import make_images

LOCAL = ExecutorOptions(executor="local", retries=0)
OPTIONS = RunOptions(device="cpu", threads=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images.npz")


def test_children_start_from_the_weights_of_their_stage(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    study = staged_study(data)
    outcome = run_sweep(study, folder, OPTIONS, LOCAL)
    assert (outcome.ok, outcome.left, outcome.errors) == (5, 0, {})
    paths = SweepPaths(folder)
    (stage,) = resolve_trials(study).stages
    show_status(read_status(paths))
    said = capsys.readouterr().out
    assert f"ok {stage.trial_id()} makes weights, epoch 2/2" in said
    assert "└ for 2 trials: 2 ok" in said
    # What others start from is not cleaned away.
    assert paths.trial(stage.trial_id()).best_weights not in find_removable(folder).files
    before = staged_bits(SweepPaths(folder))
    assert run_sweep(study, folder, OPTIONS, LOCAL) == outcome
    assert staged_bits(SweepPaths(folder)) == before


def test_the_report_shows_the_curve_and_counts_no_stage(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "run"
    run_sweep(staged_study(data), folder, OPTIONS, LOCAL)
    results = load_study(folder)
    assert len(results.trials) == 4
    assert set(results.levels["start"]) == {"random", "in-domain"}
    assert len(results.stages) == 1
    written = write_report([folder], formats=["md", "html"])
    text = (folder / "report" / "report.md").read_text()
    assert "4 of 4 planned trials finished" in text
    assert "Trainings without labels" in text
    assert "## Trainings without labels" in text
    rows = written.data["tables"]["stages"]["rows"]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"loss", "score", "teacher_entropy"} < set(rows[0])


def test_a_stage_is_exported_as_any_weights(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "run"
    study = staged_study(data, seed=[0])
    run_sweep(study, folder, OPTIONS, LOCAL)
    (stage,) = resolve_trials(study).stages
    out = export_trial(folder, stage.trial_id(), tmp_path / "out")
    model = load_exported(out)
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 64)
    again = staged_study(data, start={"a": {"weights": "random"}, "b": {"weights": str(out / "model.safetensors")}})
    assert run_sweep(again, tmp_path / "again", OPTIONS, LOCAL).ok == 4


def test_a_failed_stage_fails_its_children_by_name_and_a_retry_mends_both(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, study = tmp_path / "run", staged_study(data)
    (stage,) = resolve_trials(study).stages

    def break_down(*arguments: object) -> None:
        raise TrialError("pretraining diverged in epoch 1")

    with monkeypatch.context() as patch:
        patch.setattr(raypatch.methods.pretrain, "_train_to_evaluation", break_down)
        outcome = run_sweep(study, folder, OPTIONS, LOCAL)
    assert (outcome.ok, len(outcome.errors), outcome.left) == (2, 3, 0)
    children = [error for trial_id, error in outcome.errors.items() if trial_id != stage.trial_id()]
    assert len(children) == 2
    assert all(stage.trial_id() in error and "--retry-failed" in error for error in children)
    show_status(read_status(SweepPaths(folder)))
    said = capsys.readouterr().out
    assert f"failed {stage.trial_id()} makes weights" in said
    assert "└ for 2 trials: 2 failed" in said
    assert resume_sweep(folder, {}).errors.keys() == outcome.errors.keys()
    mended = resume_sweep(folder, {}, retry_failed=True)
    assert (mended.ok, mended.errors) == (5, {})


def test_the_plan_puts_parents_before_children(tmp_path: Path, data: Path) -> None:
    other = make_images(tmp_path / "b.npz", count=60)
    resolved = resolve_trials(staged_study([data, other], patch_size=[4, 8], stage={"epochs": 1}))
    options = OPTIONS.model_copy(update={"files": resolved.files})
    todo = plan_sweep(resolved.planned, SweepPaths(tmp_path / "run"), options).todo
    places = {config.trial_id(): place for place, config in enumerate(todo)}
    for config in resolved.trials:
        if config.parent:
            assert places[config.parent] < places[config.trial_id()]


def test_a_child_is_handed_out_once_its_parent_is_over(tmp_path: Path, data: Path) -> None:
    folder, study = tmp_path / "run", staged_study(data, seed=[0])
    run_sweep(study, folder, OPTIONS, LOCAL)
    paths = SweepPaths(folder)
    resolved = resolve_trials(study)
    (stage,) = resolved.stages
    result = paths.trial(stage.trial_id()).result
    shutil.move(result, tmp_path / "kept.json")
    groups = [(config,) for config in sorted(resolved.trials, key=lambda config: config.parent is None)]
    handed = ready_groups(groups, paths, listener=None)  # type: ignore[arg-type]  # it is told of failures alone
    first = next(handed)
    assert first is not None
    assert first[0].parent is None
    assert next(handed) is None
    assert next(handed) is None
    shutil.move(tmp_path / "kept.json", result)
    last = next(handed)
    assert last is not None
    assert last[0].parent == stage.trial_id()
    assert next(handed, "over") == "over"


class _Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("finished", [1, 2])
def test_killed_between_stage_and_child_it_ends_with_the_same_bits(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    study = staged_study(data)
    run_sweep(study, tmp_path / "straight", OPTIONS, LOCAL)
    original, count = RunningSweep.finished, iter(range(1, 100))

    def die(self: RunningSweep, result: object) -> None:
        original(self, result)  # type: ignore[arg-type]
        if next(count) == finished:
            raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunningSweep, "finished", die)
        with pytest.raises(_Killed):
            run_sweep(study, tmp_path / "broken", OPTIONS, LOCAL)
    assert resume_sweep(tmp_path / "broken", {}).ok == 5
    assert staged_bits(SweepPaths(tmp_path / "broken")) == staged_bits(SweepPaths(tmp_path / "straight"))


@pytest.mark.ray
def test_ray_hands_out_children_once_their_stage_is_over(tmp_path: Path, data: Path) -> None:
    study = staged_study(data)
    run_sweep(study, tmp_path / "local", OPTIONS, LOCAL)
    execution = ExecutorOptions(executor="ray", cpus_per_trial=1)
    outcome = run_sweep(study, tmp_path / "ray", OPTIONS, execution)
    assert (outcome.ok, outcome.errors) == (5, {})
    assert staged_bits(SweepPaths(tmp_path / "ray")) == staged_bits(SweepPaths(tmp_path / "local"))


def test_a_plan_times_a_stage_and_counts_it_once(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    resolved = resolve_trials(staged_study(data))
    # A stack, where it is the faster one here, has the memory of several.
    options = OPTIONS.model_copy(update={"files": resolved.files, "stack": "off"})
    rows = plan_cost(resolved, options, lambda _: None)
    assert {row.levels["start"]: row.trials for row in rows} == {"(makes weights)": 1, "random": 2, "in-domain": 2}
    assert all(row.seconds > 0 for row in rows)
    by_level = {row.levels["start"]: row.cost for row in rows}
    assert by_level["(makes weights)"].memory_bytes > by_level["random"].memory_bytes


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_six_kills_change_no_bit(tmp_path: Path, data: Path) -> None:
    """Killed with -9 at random moments in a stage, between stage and child, and in a child."""
    seed = int(os.environ.get("RAYPATCH_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"chaos seed {seed}: repeat with RAYPATCH_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    study = staged_study(data, stage={"epochs": 30}, epochs=[30])
    run_sweep(study, tmp_path / "undisturbed", OPTIONS, LOCAL)
    space = tmp_path / "tiny.yaml"
    space.write_text(yaml.safe_dump(study.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    words = ["run", space, "--executor", "local", "--cpus-per-trial", "1", "--device", "cpu"]
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    # All trials together have 150 epochs; the stage's are about the first of them.
    for moment in sorted(chance.sample(range(1, 140), 6)):
        driver = start(words, tmp_path)
        wait_for(lambda goal=moment, d=driver: epochs_on_disk(paths) >= goal or d.poll() is not None, every=0.005)
        time.sleep(chance.uniform(0, 0.1))
        driver.kill()
        driver.wait()
    assert start(words, tmp_path).wait(PATIENCE) == 0, said(tmp_path)
    assert staged_bits(paths) == staged_bits(SweepPaths(tmp_path / "undisturbed"))


def test_a_study_may_ask_for_the_median_of_its_repeats(tmp_path: Path, data: Path) -> None:
    study = staged_study(data, seed=[0, 1, 2], start={"a": {"lr": 1e-3}, "b": {"lr": 1e-2}})
    asked = study.model_copy(update={"repeats": "median", "stages": {}, "fixed": {**study.fixed, "weights": "random"}})
    run_sweep(asked, tmp_path / "run", OPTIONS, LOCAL)
    written = write_report([tmp_path / "run"], formats=["md"])
    assert "median ± sample standard deviation" in (tmp_path / "run" / "report" / "report.md").read_text()
    results = load_study(tmp_path / "run")
    level = results.trials[results.levels["start"] == "b"]
    (row,) = [row for row in written.data["tables"]["main"]["rows"] if row["level"] == "b"]
    assert row["test_auc_median"] == pytest.approx(level["test_auc"].median())
    assert row["test_auc_mean"] == pytest.approx(level["test_auc"].mean())
