"""Estimates: seconds from a calibration, and the table of a plan."""

import json
from pathlib import Path

import pytest

from raypatch.config import TrialConfig
from raypatch.models import memory
from raypatch.models.flops import model_facts
from raypatch.results import SweepPaths
from raypatch.search_settings import SearchSettings
from raypatch.sweep.cost.calibration import calibrate
from raypatch.sweep.cost.estimate import PlanRow, as_json, as_table, known_seconds, of_search, plan_cost
from raypatch.sweep.plan import plan_sweep

from tiny import make_images, tiny_trial


def _small(**fields: object) -> TrialConfig:
    values = {"dataset": "phantom2d", "patch_size": 2, "model": "vit_tiny_patch16_224", "weights": "random"}
    return TrialConfig.model_validate(values | fields)


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
def _idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


def test_a_calibration_beside_other_work_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from raypatch.sweep.cost import calibration

    calibration._cache_of.cache_clear()
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    said: list[str] = []
    calibrate([config], options, said.append)
    assert "load 99.0" in said[0]
    assert "--recalibrate" in said[0]
    calibrate([config], options, said.append)
    assert len(said) == 2, "nothing is timed then, so nothing is falsified"
    calibration._cache_of.cache_clear()


def test_plan_calibrates_once_and_orders_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from raypatch.sweep.cost import calibration

    calibration._cache_of.cache_clear()
    path = make_images(tmp_path / "a.npz")
    trials = [tiny_trial(path, patch_size=patch, seed=seed)[0] for patch in (8, 2) for seed in (0, 1)]
    options = tiny_trial(path)[1]
    assert known_seconds(trials[0], options) is None
    said: list[str] = []
    rows = plan_cost(trials, options, said.append)
    assert [(row.patch_size, row.trials, row.tokens) for row in rows] == [(8, 2, 1), (2, 2, 16)]
    assert len(said) == 2
    assert all(row.seconds > 0 and row.memory_bytes > 0 for row in rows)
    plan_cost(trials, options, said.append)
    assert len(said) == 2, "the second plan reads what the first one timed"
    plan_cost(trials[:2], options, said.append, recalibrate=True)
    assert said[2:] == said[:1], "what is asked for is timed again and the rest is kept"
    rows = plan_cost(trials, options, said.append)
    assert len(said) == 3
    found = json.loads(as_json(rows))
    assert found["trials"] == 4
    assert found["hours"] == pytest.approx(sum(row.seconds for row in rows) / 3600)
    assert "4 trials" in as_table(rows)
    known = {config.trial_id(): known_seconds(config, options) or 0.0 for config in trials}
    assert rows[0].seconds == pytest.approx(sum(known[config.trial_id()] for config in trials[:2]))
    order = [known[config.trial_id()] for config in plan_sweep(trials, SweepPaths(tmp_path / "run"), options).todo]
    assert order == sorted(order, reverse=True)
    calibration._cache_of.cache_clear()


def test_what_would_take_too_long_is_scaled_by_its_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from raypatch.sweep.cost import calibration

    calibration._cache_of.cache_clear()
    path = make_images(tmp_path / "a.npz")
    trials = [tiny_trial(path, patch_size=patch)[0] for patch in (8, 2)]
    options = tiny_trial(path)[1]
    said: list[str] = []
    monkeypatch.setattr(calibration, "LONGEST_STEP", 0.0)
    short, long = calibrate(trials, options, said.append).timings.values()
    flops = [model_facts(config, dimensions=2, outputs=2).gflops for config in trials]
    assert len(said) == 1
    assert long.step / short.step == pytest.approx(flops[1] / flops[0])
    calibration._cache_of.cache_clear()


def test_a_search_costs_its_samples_within_its_budget() -> None:
    row = PlanRow(
        dataset="d", patch_size=4, trials=1, tokens=49, parameters=1, gflops=1.0, micro_batch=8, checkpointing=False,
        memory_bytes=1, seconds=10.0,
    )  # fmt: skip
    fields = {"lr": {"loguniform": [1e-6, 1e-3]}}
    bounded = SearchSettings.model_validate({"samples": 16, "budget": 0.4, "fields": fields})
    full = SearchSettings.model_validate({"samples": 16, "pruner": "none", "fields": fields})
    assert (of_search(row, bounded).trials, of_search(row, bounded).seconds) == (16, pytest.approx(64.0))
    assert of_search(row, full).seconds == pytest.approx(160.0)
