"""Sweeps whose seeds train as one model: what is stacked, what the plan says of it, and what is left on disk."""

from pathlib import Path

import pytest

from raypatch.config import RunOptions, TrialConfig
from raypatch.methods import MOST_TOGETHER
from raypatch.results import EpochRow, SweepPaths, read_epochs, read_result
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.cost import stacks
from raypatch.sweep.cost.estimate import plan_cost
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.cost.plan_table import as_json, as_table
from raypatch.sweep.cost.seconds import calibration, calibration_file, stack_timing
from raypatch.sweep.cost.seconds.timing import Timing
from raypatch.sweep.cost.stacks import known_together, together_at_most
from raypatch.sweep.groups import group_trials, place_stacks
from raypatch.sweep.run import ExecutorOptions, Outcome, run_sweep
from raypatch.sweep.watch.running import RunningSweep

from tiny import make_images, read_figures, tiny_study, tiny_trial

LOCAL = ExecutorOptions(executor="local", retries=0)


def _run(data: Path, folder: Path, stack: object = 3, **axes: object) -> Outcome:
    options = RunOptions(device="cpu", threads=1, stack=stack)  # type: ignore[arg-type]
    axes = {"patch_size": [8], "seed": [0, 1, 2]} | axes
    return run_sweep(tiny_study(data, fixed={"precision": "float32"}, **axes), folder, options, LOCAL)


def _seeds(count: int, **fields: object) -> list[TrialConfig]:
    config = TrialConfig.model_validate({"dataset": "derma", "patch_size": 4} | fields)
    return [config.model_copy(update={"seed": seed}) for seed in range(count)]


def test_each_trial_of_a_stack_has_its_files_and_the_numbers_it_has_alone(tmp_path: Path) -> None:
    data = make_images(tmp_path / "a.npz")
    outcome = _run(data, tmp_path / "run", patch_size=[8, 4])
    assert (outcome.ok, outcome.left, outcome.errors) == (6, 0, {})
    assert _run(data, tmp_path / "alone", stack="off", patch_size=[8, 4]).ok == 6
    for trial in SweepPaths(tmp_path / "run").trial_folders():
        alone = SweepPaths(tmp_path / "alone").trial(trial.folder.name)
        result = read_result(trial.result)
        assert result is not None
        assert (result.status, result.epochs) == ("ok", 2)
        assert "3 models train as one" in trial.log.read_text()
        assert "as one" not in alone.log.read_text()
        assert trial.event_files()
        assert not trial.checkpoint.exists()
        losses = [row.val["loss"] for row in read_epochs(trial.epochs)]
        assert losses == pytest.approx([row.val["loss"] for row in read_epochs(alone.epochs)], abs=1e-5)


def test_a_sweep_of_stacks_that_was_killed_ends_at_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_images(tmp_path / "a.npz")
    # Two stacks, of two and of one, whatever of them is over when the sweep goes on.
    _run(data, tmp_path / "straight", stack=2)
    real, calls = RunningSweep.epoch, 0

    def fatal(running: RunningSweep, trial_id: str, row: EpochRow) -> None:
        nonlocal calls
        real(running, trial_id, row)
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunningSweep, "epoch", fatal)
    with pytest.raises(KeyboardInterrupt):
        _run(data, tmp_path / "broken", stack=2)
    monkeypatch.setattr(RunningSweep, "epoch", real)
    assert _run(data, tmp_path / "broken", stack=2).ok == 3
    assert read_figures(SweepPaths(tmp_path / "broken")) == read_figures(SweepPaths(tmp_path / "straight"))


def test_whole_models_keep_their_company_when_others_are_over() -> None:
    seeds = _seeds(5)
    assert [len(group) for group in group_trials(seeds)] == [1] * 5
    assert [len(group) for group in group_trials(seeds, lambda _: 2)] == [2, 2, 1]
    rest = [seeds[4], *seeds[1:3]]
    assert group_trials(rest, lambda _: 2, seeds) == [(seeds[4],), (seeds[1],), (seeds[2],)]
    probes = _seeds(5, method="linear_probe", augmentation="none")
    assert group_trials(probes[2:], lambda _: MOST_TOGETHER, probes) == [tuple(probes[2:])]
    assert [len(group) for group in group_trials(_seeds(2) + _seeds(2, lr=0.01), lambda _: 8)] == [4]


def test_what_the_user_says_and_what_was_measured_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = _seeds(1)
    faster, slower = (Timing(step=1.0, evaluation=1.0, stacked=stacked) for stacked in (0.8, 0.95))

    def most(stack: object, timing: Timing | None = None) -> int:
        options = RunOptions(device="cpu", stack=stack)  # type: ignore[arg-type]
        return together_at_most(config, options, timing)

    assert [most("off", faster), most(3), most(5, slower), most("auto"), most("auto", slower)] == [1, 3, 5, 1, 1]
    assert most("auto", faster) == stacks.MOST_STACKED
    monkeypatch.setattr(stacks, "stack_fits", lambda *arguments: arguments[-1] <= 2)
    assert [most("auto", faster), most(5), most("off")] == [2, 2, 1]


@pytest.mark.parametrize(("ratio", "size"), [(0.5, 3), (1.2, 1)])
def test_the_plan_measures_and_states_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, size: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "taken_cores", lambda: 0.0)
    monkeypatch.setattr(stack_timing, "taken_cores", lambda: 0.0)
    calibration_file._cache_of.cache_clear()
    data = make_images(tmp_path / "a.npz")
    study = resolve_trials(tiny_study(data, patch_size=[8], seed=[0, 1, 2]))
    options = tiny_trial(data)[1]
    monkeypatch.setattr(stack_timing, "stacked_ratio", lambda *_: ratio)
    said: list[str] = []
    (row,) = plan_cost(study, options, said.append)
    assert "3 models as one" in said[-1]
    assert row.cost.stack == size
    off = options.model_copy(update={"stack": "off"})
    (alone,) = plan_cost(study, off, said.append)
    assert alone.cost.stack == 1
    assert (row.seconds < alone.seconds, row.cost.memory_bytes > alone.cost.memory_bytes) == (size > 1, size > 1)
    assert ("stack" in as_table([row])) == (size > 1)
    assert f'"stack": {size}' in as_json([row])
    # A run takes what the plan has measured.
    known = options.model_copy(update={"files": {**options.files, **study.files}})
    assert min(known_together(study.trials[0], known), 3) == size
    (again,) = plan_cost(study, options, said.append)
    assert again.cost.stack == size
    assert sum("as one" in text for text in said) == 1
    calibration_file._cache_of.cache_clear()


def test_where_a_model_gains_nothing_its_larger_kinds_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_images(tmp_path / "a.npz")
    options = tiny_trial(path)[1]
    trials = [tiny_trial(path, patch_size=patch, seed=seed)[0] for patch in (8, 4, 2) for seed in (0, 1)]
    kinds = list(dict.fromkeys(calibration.step_kind(config, options) for config in trials))
    steps = dict(zip(kinds, (3.0, 1.0, 2.0), strict=True))
    timings = {kind: Timing(step=step / 10, evaluation=0.1) for kind, step in steps.items()}
    made = calibration_file.Calibration(machine={}, disk=1.0, timings=timings)
    ratios = {4: 0.5, 2: 0.95, 8: 0.5}
    monkeypatch.setattr(stack_timing, "stacked_ratio", lambda config, _: ratios[config.patch_size])
    monkeypatch.setattr(stack_timing, "keep_timing", lambda *_: None)
    said: list[str] = []
    monkeypatch.setattr(stack_timing, "taken_cores", lambda: 0.6)
    assert stack_timing.time_stacks(made, trials, options, said.append) == made, "other work would falsify it"
    monkeypatch.setattr(stack_timing, "taken_cores", lambda: 0.0)
    found = stack_timing.time_stacks(made, trials, options, said.append).timings
    assert [found[kind].stacked for kind in kinds] == pytest.approx([0.3, 0.05, 0.19])
    assert len(said) == 2


@pytest.mark.parametrize("fields", [{}, {"model": "test_resnet", "patch_size": None, "image_size": 32}])
def test_a_stacked_step_is_timed(tmp_path: Path, fields: dict[str, object]) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), **fields)
    assert stack_timing.stacked_ratio(config, options) > 0


def test_a_stack_has_a_card_for_itself_or_the_cores_that_are_free() -> None:
    seeds = _seeds(4)
    groups = group_trials(seeds, lambda _: 3)
    shares = {config.trial_id(): 0.25 for config in seeds}
    placed = place_stacks(Placement(2, 0.25, 4, shares), groups, LOCAL)
    assert [placed.as_bundle(group[0].trial_id())["GPU"] for group in groups] == [1.0, 0.25]
    on_cores = Placement(1, 0.0, 4)
    assert place_stacks(on_cores, groups, LOCAL) == Placement(2, 0.0, 2)
    assert place_stacks(on_cores, groups, LOCAL.model_copy(update={"cpus_per_trial": 1})) == on_cores
    assert place_stacks(on_cores, group_trials(seeds), LOCAL) == on_cores


def test_a_search_says_that_it_stacks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"fields": {"lr": {"choice": [1e-3, 1e-2]}}, "samples": 1, "grace_epochs": 1}
    study = tiny_study(make_images(tmp_path / "a.npz"), search=settings, patch_size=[8])
    options = RunOptions(device="cpu", threads=1, stack=3)
    assert run_sweep(study, tmp_path / "run", options, LOCAL).ok == 1
    assert "--stack 3 does nothing here: a search trains each trial alone" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_runs_stacks(tmp_path: Path) -> None:
    data = make_images(tmp_path / "a.npz")
    options = RunOptions(device="cpu", threads=1, stack=3)
    study = tiny_study(data, patch_size=[8], seed=[0, 1, 2])
    outcome = run_sweep(study, tmp_path / "run", options, ExecutorOptions(executor="ray", retries=0))
    assert (outcome.ok, outcome.left, outcome.errors) == (3, 0, {})
    logs = [trial.log.read_text() for trial in SweepPaths(tmp_path / "run").trial_folders()]
    assert all("3 models train as one" in log for log in logs)
