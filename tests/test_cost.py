"""Estimates: activation memory against what autograd keeps, micro-batches that fit, seconds from a calibration."""

import json
from pathlib import Path

import pytest
import torch
from tiny import make_images, tiny_trial

from raypatch.config import TrialConfig
from raypatch.models import memory
from raypatch.models.build import build_model
from raypatch.models.flops import model_facts
from raypatch.models.memory import activation_bytes, choose_micro_batch, training_bytes
from raypatch.results import SweepPaths
from raypatch.runtime import Precision
from raypatch.search_settings import SearchSettings
from raypatch.sweep.cost import PlanRow, as_json, as_table, calibrate, known_seconds, of_search, plan_cost
from raypatch.sweep.plan import plan_sweep


def _small(**fields: object) -> TrialConfig:
    values = {"dataset": "phantom2d", "patch_size": 2, "model": "vit_tiny_patch16_224", "weights": "random"}
    return TrialConfig.model_validate(values | fields)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activation_estimate_covers_what_autograd_keeps_and_little_more(precision: Precision) -> None:
    config = _small()
    facts = model_facts(config, dimensions=2, outputs=2)
    model = build_model(config, dimensions=2, outputs=2, files={}).model
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.randn(2, 3, 28, 28)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        model(images)
    cast_weights = 2 * facts.parameters if precision == "bfloat16" else 0
    measured = (sum(kept.values()) - cast_weights) / 2
    estimated = activation_bytes(config, facts, precision, checkpointing=False)
    assert measured <= estimated <= 1.25 * measured


def test_a_volume_of_patch_1_trains_on_a_24_gb_card() -> None:
    config = TrialConfig(dataset="vessel", patch_size=1)
    facts = model_facts(config, dimensions=3, outputs=2)
    micro_batch, checkpointing = choose_micro_batch(config, facts, "bfloat16", 23 * 2**30)
    assert micro_batch >= 1
    assert training_bytes(config, facts, "bfloat16", micro_batch=micro_batch, checkpointing=checkpointing) < 23 * 2**30


def test_less_memory_halves_the_micro_batch_and_at_last_checkpoints() -> None:
    config = TrialConfig(dataset="vessel", patch_size=1)
    facts = model_facts(config, dimensions=3, outputs=2)
    found = [choose_micro_batch(config, facts, "bfloat16", gib * 2**30) for gib in (80, 40, 16, 4, 2, 0)]
    assert found == sorted(found, key=lambda each: (each[1], -each[0]))
    assert found[0] == (8, False)
    assert found[-1] == (1, True)


def test_training_with_checkpointing_gives_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypatch.results import TrialPaths
    from raypatch.train import train_trial

    config, options = tiny_trial(make_images(tmp_path / "a.npz"), epochs=1, precision="float32")
    losses = []
    for name, available in (("whole", 2**40), ("checkpointed", 0)):
        monkeypatch.setattr(memory, "available_bytes", lambda device, available=available: available)
        (tmp_path / name).mkdir()
        losses.append(train_trial(config, TrialPaths(tmp_path / name), options).val)
    assert losses[0] is not None
    assert losses[1] is not None
    assert losses[0].loss == pytest.approx(losses[1].loss, rel=1e-4)


def test_plan_calibrates_once_and_orders_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from raypatch.sweep import cost

    cost._cache_of.cache_clear()
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
    found = json.loads(as_json(rows))
    assert found["trials"] == 4
    assert found["hours"] == pytest.approx(sum(row.seconds for row in rows) / 3600)
    assert "4 trials" in as_table(rows)
    known = {config.trial_id(): known_seconds(config, options) or 0.0 for config in trials}
    assert rows[0].seconds == pytest.approx(sum(known[config.trial_id()] for config in trials[:2]))
    order = [known[config.trial_id()] for config in plan_sweep(trials, SweepPaths(tmp_path / "run"), options).todo]
    assert order == sorted(order, reverse=True)
    cost._cache_of.cache_clear()


def test_what_would_take_too_long_is_scaled_by_its_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from raypatch.sweep import cost

    cost._cache_of.cache_clear()
    path = make_images(tmp_path / "a.npz")
    trials = [tiny_trial(path, patch_size=patch)[0] for patch in (8, 2)]
    options = tiny_trial(path)[1]
    said: list[str] = []
    monkeypatch.setattr(cost, "LONGEST_STEP", 0.0)
    short, long = calibrate(trials, options, said.append).timings.values()
    flops = [model_facts(config, dimensions=2, outputs=2).gflops for config in trials]
    assert len(said) == 1
    assert long.step / short.step == pytest.approx(flops[1] / flops[0])
    cost._cache_of.cache_clear()


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
