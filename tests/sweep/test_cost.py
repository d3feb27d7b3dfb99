"""Estimates: seconds from a calibration, and the table of a plan."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.machine.runtime import on_threads, resolve_device, resolve_precision
from raypatch.models import memory
from raypatch.models.flops import model_facts, trial_facts
from raypatch.results import SweepPaths
from raypatch.study import Study
from raypatch.study.resolve import StudyTrials, resolve_search, resolve_trials
from raypatch.sweep.cost import estimate
from raypatch.sweep.cost.estimate import PlanRow, plan_cost
from raypatch.sweep.cost.plan_table import as_json, as_table
from raypatch.sweep.cost.seconds import calibration, calibration_file, stack_timing, step_timing, timing
from raypatch.sweep.cost.seconds.calibration import calibrate
from raypatch.sweep.cost.seconds.calibration_file import Calibration
from raypatch.sweep.cost.seconds.scaling import Timed
from raypatch.sweep.cost.seconds.timing import Timing
from raypatch.sweep.cost.seconds.trial_seconds import known_seconds
from raypatch.sweep.plan import plan_sweep

from tiny import make_images, tiny_study, tiny_trial


def test_training_with_checkpointing_gives_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypatch.results import TrialPaths
    from raypatch.trial import train_trial

    config, options = tiny_trial(make_images(tmp_path / "a.npz"), epochs=1, precision="float32")
    losses = []
    for name, available in (("whole", 2**40), ("checkpointed", 0)):
        monkeypatch.setattr(memory, "available_bytes", lambda device, available=available: available)
        (tmp_path / name).mkdir()
        losses.append(train_trial(config, TrialPaths(tmp_path / name), options).val)
    assert losses[0] is not None
    assert losses[1] is not None
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-4)


@pytest.fixture(autouse=True)
def _idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An idle machine on which nothing was timed before."""
    for module in (calibration, stack_timing):
        monkeypatch.setattr(module, "taken_cores", lambda: 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibration_file._cache_of.cache_clear()
    yield
    calibration_file._cache_of.cache_clear()


def test_a_calibration_beside_other_work_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "taken_cores", lambda: 0.6)
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    said: list[str] = []
    calibrate([config], options, said.append)
    assert "other work runs here and takes 0.6 of" in said[0]
    assert "is not kept" in said[0]
    assert known_seconds(config, options) is None
    monkeypatch.setattr(calibration, "taken_cores", lambda: 0.2)
    calibrate([config], options, said.append)
    assert said[2:] == [said[1]], "what other work falsified is timed again"
    assert known_seconds(config, options) is not None
    monkeypatch.setattr(calibration, "taken_cores", lambda: 0.6)
    calibrate([config], options, said.append)
    assert len(said) == 4, "nothing is timed then, so nothing is falsified"
    assert re.fullmatch(r"kinds of trials timed before: 1, up to \d+s ago, at a load of up to 0\.2; .*", said[3])


@pytest.mark.parametrize(("cores", "taken", "threads"), [(2, 0.6, 1), (2, 1.9, 1), (64, 0.6, 63), (4, 0.1, 4)])
def test_beside_other_work_steps_are_timed_on_the_free_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, taken: float, threads: int
) -> None:
    used: list[int] = []

    def time_trial(*_: object, **__: object) -> Timing:
        used.append(torch.get_num_threads())
        return Timing(step=1.0, evaluation=1.0)

    monkeypatch.setattr(calibration, "time_trial", time_trial)
    monkeypatch.setattr(calibration, "taken_cores", lambda: taken)
    monkeypatch.setattr(calibration, "available_cores", lambda: cores)
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    with on_threads(cores):
        calibrate([config], options.model_copy(update={"threads": None}), bool)
        assert torch.get_num_threads() == cores, "what a notebook does next is its own"
    assert used == [threads]


def test_the_least_of_some_calls_counts() -> None:
    now = [0.0]
    taken = iter([0.01, 0.09, 0.02, 0.3, 9.0, 0.001])

    def call() -> None:
        now[0] += next(taken)

    found = timing.least_seconds(call, warm_up=1, repeats=5, clock=lambda: now[0])
    assert found == pytest.approx(0.02)
    assert next(taken) == 0.001, "a call that other work made long is the last"


def test_what_one_thread_waits_for_does_not_count() -> None:
    with on_threads(1):
        assert timing.clock_of(torch.device("cpu")) is time.thread_time
        assert timing.clock_of(torch.device("cuda")) is time.perf_counter
    with on_threads(2):
        assert timing.clock_of(torch.device("cpu")) is time.perf_counter


def test_plan_calibrates_once_and_orders_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_images(tmp_path / "a.npz")
    study = resolve_trials(tiny_study(path, patch_size=[8, 2], seed=[0, 1]))
    trials, options = study.trials, tiny_trial(path)[1].model_copy(update={"stack": "off"})
    half = StudyTrials(trials[:2], study.factors, study.levels, study.files)
    assert known_seconds(trials[0], options) is None
    said: list[str] = []
    rows = plan_cost(study, options, said.append)
    shown = [(row.levels, row.settings, row.trials, row.cost.tokens) for row in rows]
    assert shown == [({"patch_size": "8"}, {}, 2, 1), ({"patch_size": "2"}, {}, 2, 16)]
    assert len(said) == 2
    assert all(row.seconds > 0 and row.cost.memory_bytes > 0 for row in rows)
    plan_cost(study, options, said.append)
    (line,) = said[2:]
    assert "kinds of trials timed before: 2" in line, "the second plan reads what the first one timed"
    plan_cost(half, options, said.append, recalibrate=True)
    assert said[3:] == said[:1], "what is asked for is timed again and the rest is kept"
    rows = plan_cost(study, options, said.append)
    assert len(said) == 5
    found = json.loads(as_json(rows))
    assert found["trials"] == 4
    assert found["hours"] == pytest.approx(sum(row.seconds for row in rows) / 3600)
    assert "4 trials" in as_table(rows)
    known = {config.trial_id(): known_seconds(config, options) or 0.0 for config in trials}
    assert rows[0].seconds == pytest.approx(sum(known[config.trial_id()] for config in trials[:2]))
    order = [known[config.trial_id()] for config in plan_sweep(trials, SweepPaths(tmp_path / "run"), options).todo]
    assert order == sorted(order, reverse=True)


def test_what_there_is_no_time_for_is_scaled_by_its_arithmetic_and_timed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_images(tmp_path / "a.npz")
    trials = [tiny_trial(path, patch_size=patch)[0] for patch in (8, 2)]
    options = tiny_trial(path)[1]
    said: list[str] = []
    monkeypatch.setattr(calibration, "LONGEST_CALIBRATION", 0.0)
    short, long = calibrate(trials, options, said.append).timings.values()
    assert (short.scaled, long.scaled) == (False, True)
    assert "1 of 2 kinds of steps are not timed but scaled" in said[-1]
    assert len(said) == 2
    flops = [model_facts(config, dimensions=2, outputs=2).gflops for config in trials]
    assert long.step / short.step == pytest.approx(flops[1] / flops[0])
    assert known_seconds(trials[1], options) is not None, "the order of trials goes by it"
    monkeypatch.setattr(calibration, "LONGEST_CALIBRATION", 1e9)
    found = list(calibrate(trials, options, said.append).timings.values())
    assert found[0] == short, "what was timed is kept"
    assert not found[1].scaled
    assert len(said) == 4, "one is known, the other is timed"


def test_rows_that_are_scaled_are_counted_under_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_images(tmp_path / "a.npz")
    study = resolve_trials(tiny_study(path, patch_size=[8, 2]))
    options = tiny_trial(path)[1]
    monkeypatch.setattr(calibration, "LONGEST_CALIBRATION", 0.0)
    rows = plan_cost(study, options, bool)
    assert [row.cost.scaled for row in rows] == [False, True]
    assert "hours of 1 of 2 rows are scaled" in as_table(rows)
    assert [row["scaled"] for row in json.loads(as_json(rows))["rows"]] == [False, True]
    monkeypatch.setattr(calibration, "LONGEST_CALIBRATION", 1e9)
    assert "scaled" not in as_table(plan_cost(study, options, bool))


def test_a_frozen_backbone_is_timed_once_for_all_that_stands_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypatch.sweep.cost.seconds import head_timing

    path = make_images(tmp_path / "a.npz")
    fields = {"augmentation": "none", "patch_size": 4}
    methods = [{"method": "linear_probe"}, {"method": "linear_probe", "head": "mlp"}, {"method": "knn", "k": 3}]
    trials = [tiny_trial(path, **fields, **method)[0] for method in methods]
    passed: list[str] = []
    real = head_timing._time_pass
    monkeypatch.setattr(head_timing, "_time_pass", lambda *each: passed.append("") or real(*each))
    found = calibrate(trials, tiny_trial(path)[1], bool).timings
    assert len(passed) == 1
    assert len({timing.evaluation for timing in found.values()}) == 1
    assert all(timing.scoring > 0 for timing in found.values())
    assert all((timing.step > 0) == ("knn" not in kind) for kind, timing in found.items())


def test_scoring_is_scaled_by_the_images_that_are_compared(tmp_path: Path) -> None:
    few = make_images(tmp_path / "few.npz")
    many = make_images(tmp_path / "many.npz", count=48)
    options = RunOptions(device="cpu", files={**tiny_trial(few)[1].files, **tiny_trial(many)[1].files})
    known = Timing(step=1e-3, evaluation=1e-4, scoring=0.5)
    for method, factor in ({"method": "linear_probe"}, 1), ({"method": "knn", "k": 3}, 2):
        fields = {"augmentation": "none", "patch_size": 4, **method}
        of_few, of_many = (tiny_trial(path, **fields)[0] for path in (few, many))
        timed = Timed(options)
        timed.add(of_few, known)
        scaled = timed.scale(of_many)
        assert scaled is not None
        assert scaled.scoring == pytest.approx(0.5 * factor)
        assert (scaled.step, scaled.evaluation, scaled.scaled) == (known.step, pytest.approx(known.evaluation), True)


def test_a_step_on_a_cpu_is_timed_on_as_many_images_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    class Step(step_timing.TrainingStep):
        def __call__(self, images: Tensor, *rest: Any) -> Tensor:
            seen.append(tuple(images.shape))
            return super().__call__(images, *rest)

    monkeypatch.setattr(step_timing, "TrainingStep", Step)
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    whole = step_timing.time_trial(config, options)
    monkeypatch.setattr(timing, "TIMED_GFLOPS", 0.0)
    monkeypatch.setattr(timing, "LONGEST_TIMING", 0.0)
    part = step_timing.time_trial(config, options)
    assert [shape[0] for shape in seen] == [8] * 6 + [2] * 2
    # Both speak of a whole step; how long one takes hangs on what else runs here.
    assert whole.step > 0
    assert part.step > 0


def _plan(study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[PlanRow]:
    """Plan with a calibration that says: a step takes a millisecond per GFLOP."""

    def made_up(config: TrialConfig, options: RunOptions) -> Timing:
        seconds = trial_facts(config, options)[1].gflops / 1000
        return Timing(step=seconds, evaluation=seconds)

    def calibrate(trials: Sequence[TrialConfig], options: RunOptions, *_: object, **__: object) -> object:
        timings = {calibration.step_kind(config, options): made_up(config, options) for config in trials}
        return Calibration(machine={}, disk=1e9, timings=timings)

    monkeypatch.setattr(estimate, "calibrate", calibrate)
    resolved = resolve_trials(study) if study.search is None else resolve_search(study)
    return plan_cost(resolved, RunOptions(device="cpu", threads=1), bool)


def test_each_model_has_its_own_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ["test_vit", "vit_tiny_patch16_224"]
    content = tiny_study(make_images(tmp_path / "a.npz"), model=models, patch_size=[4, 2]).model_dump()
    two_factors = Study.model_validate(content | {"compare": ["patch_size", "model"]})
    rows = _plan(two_factors, tmp_path, monkeypatch)
    assert [tuple(row.levels.values()) for row in rows] == [(p, m) for p in ("4", "2") for m in models]
    for row in rows:
        config = tiny_trial(tmp_path / "a.npz", model=row.levels["model"], patch_size=int(row.levels["patch_size"]))[0]
        facts = model_facts(config, dimensions=2, outputs=2)
        assert (row.cost.tokens, row.cost.parameters, row.cost.gflops) == (facts.tokens, facts.parameters, facts.gflops)
    assert len({row.cost.memory_bytes for row in rows}) == 4

    one_factor = Study.model_validate(content | {"compare": ["patch_size"]})
    rows = _plan(one_factor, tmp_path, monkeypatch)
    assert [(row.levels["patch_size"], row.settings["model"]) for row in rows] == [
        (p, m) for p in ("4", "2") for m in models
    ]
    head, *lines = as_table(rows).splitlines()
    assert head.split("  ")[0] == "dataset"
    assert head.split()[1:4] == ["patch", "size", "model"]
    assert "vit_tiny_patch16_224" in lines[1]


def test_trials_that_cost_the_same_share_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study(make_images(tmp_path / "a.npz"), lr=[1e-3, 1e-4], batch_size=[4, 8], patch_size=[4])
    rows = _plan(study, tmp_path, monkeypatch)
    assert [(row.settings, row.trials) for row in rows] == [({"batch_size": "4"}, 2), ({"batch_size": "8"}, 2)]
    assert set(json.loads(as_json(rows))["rows"][0]) >= {"dataset", "levels", "settings", "trials", "tokens", "seconds"}


def test_a_search_costs_its_samples_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_images(tmp_path / "a.npz")

    def rows_of(**settings: object) -> list[PlanRow]:
        search = {"samples": 16, "grace_epochs": 1, "fields": {"lr": {"loguniform": [1e-6, 1e-3]}}} | settings
        return _plan(tiny_study(data, search=search), tmp_path, monkeypatch)

    for row in rows_of(budget=0.9):
        assert row.trials == 16
        assert row.seconds == pytest.approx(16 * 0.9 * row.cost.seconds)
    assert all(row.seconds == pytest.approx(16 * row.cost.seconds) for row in rows_of(pruner="none"))


def test_levels_that_are_searched_together_have_a_row_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = {"samples": 5, "grace_epochs": 1, "fields": {"lr": {"loguniform": [1e-6, 1e-3]}}}
    study = tiny_study(make_images(tmp_path / "a.npz"), search=search).search_together()
    rows = _plan(study, tmp_path, monkeypatch)
    assert [(row.levels["patch_size"], row.trials) for row in rows] == [("8", 3), ("4", 2)]
    assert rows[0].cost.tokens != rows[1].cost.tokens


def test_a_plan_of_many_trials_reads_each_thing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypatch.data import source
    from raypatch.factors import Level

    path, inspected, real = make_images(tmp_path / "a.npz"), [], source.inspect_npz

    def inspect(file: Path) -> DatasetInfo:
        inspected.append(file)
        return real(file)

    def refuse(level: Level, config: TrialConfig) -> bool:
        raise AssertionError("levels are looked up by value, not gone through for each trial")

    monkeypatch.setattr(source, "inspect_npz", inspect)
    monkeypatch.setattr(Level, "holds", refuse)
    study = tiny_study(path, train_fraction=[number / 500 for number in range(1, 501)], patch_size=[8])
    resolved = resolve_trials(study.model_copy(update={"compare": ("train_fraction",)}))
    assert len(resolved.factors[0].levels) == 500
    options = RunOptions(device="cpu", files=resolved.files)
    assert len(plan_sweep(resolved.trials, SweepPaths(tmp_path / "run"), options).todo) == 500
    assert inspected == [path]


def test_a_pass_for_features_counts_once_and_not_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypatch.features.identity import feature_key

    path = make_images(tmp_path / "a.npz")
    methods = {
        "linear": {"method": "linear_probe", "augmentation": "none"},
        "mlp": {"method": "linear_probe", "augmentation": "none", "head": "mlp"},
        "neighbours": {"method": "knn", "k": 3},
    }
    content = tiny_study(path, patch_size=[4], how=methods, lr=[1e-2, 1e-3]).model_dump()
    study = resolve_trials(Study.model_validate(content | {"compare": ["how"]}))
    options = tiny_trial(path)[1]
    rows = plan_cost(study, options, bool)
    assert [(row.levels["how"], row.trials, row.passes) for row in rows] == [
        ("linear", 2, 1),
        ("mlp", 2, 0),
        ("neighbours", 2, 0),
    ]
    assert "1 pass through a frozen backbone among them" in as_table(rows)
    assert rows[0].seconds > rows[0].trials * rows[0].cost.seconds
    assert rows[1].seconds == pytest.approx(rows[1].trials * rows[1].cost.seconds)
    paths = SweepPaths(tmp_path / "run")
    before = plan_sweep(study.trials, paths, options).seconds
    store = paths.features / feature_key(study.trials[0], resolve_precision("auto", resolve_device("cpu")))
    store.mkdir(parents=True)
    (store / "test.npy").touch()
    assert [row.passes for row in plan_cost(study, options, bool, store=paths.features)] == [0, 0, 0]
    after = plan_sweep(study.trials, paths, options).seconds
    cheaper = [trial_id for trial_id in before if after[trial_id] < before[trial_id]]
    assert len(cheaper) == 1, "the first to run makes them for all"
