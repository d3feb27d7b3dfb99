"""Plain or fused attention: measured once on a machine, kept with a trial's checkpoint."""

from pathlib import Path

import pytest
import torch

from raypatch.config import TrialConfig
from raypatch.machine.runtime import Precision
from raypatch.models import attention
from raypatch.models.attention import choose_attention, has_plain_attention, measure_attention, use_plain_attention
from raypatch.models.build import build_model
from raypatch.models.flops import model_facts
from raypatch.models.prepared import PreparedModel, place_model
from raypatch.training.checkpoints.checkpoint import restore_training_state, training_state
from raypatch.training.optim import make_optimizer

CONFIG = TrialConfig(dataset="phantom2d", patch_size=4, model="test_vit", weights="random")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _prepared(precision: Precision) -> PreparedModel:
    built = build_model(CONFIG, dimensions=2, outputs=2, files={})
    facts = model_facts(CONFIG, dimensions=2, outputs=2)
    return place_model(CONFIG, built, facts, torch.device("cpu"), precision)


def _let_measure(monkeypatch: pytest.MonkeyPatch, *, fused: float, plain: float) -> None:
    monkeypatch.setattr(attention, "measure_attention", lambda *_: {"fused": fused, "plain": plain})


def test_the_faster_way_is_taken_and_the_first_measurement_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or noise would give the same trial other bits the next time."""
    prepared = _prepared("bfloat16")
    assert not has_plain_attention(prepared.model)
    _let_measure(monkeypatch, fused=2.0, plain=1.0)
    choose_attention(prepared, 8)
    assert has_plain_attention(prepared.model)
    _let_measure(monkeypatch, fused=1.0, plain=2.0)
    choose_attention(prepared, 8)
    assert has_plain_attention(prepared.model)
    # Passes of other sizes are another question.
    choose_attention(prepared, 4)
    assert not has_plain_attention(prepared.model)


def test_float32_and_small_layers_stay_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    _let_measure(monkeypatch, fused=2.0, plain=1.0)
    exact = _prepared("float32")
    choose_attention(exact, 8)
    assert not has_plain_attention(exact.model)
    rounded = _prepared("bfloat16")
    choose_attention(rounded, 1)
    assert not has_plain_attention(rounded.model)


def test_a_measurement_leaves_the_layer_as_it_was() -> None:
    layer = attention._layers(_prepared("bfloat16").model)[0]
    seconds = measure_attention(layer, 2, 50)
    assert seconds["fused"] > 0
    assert seconds["plain"] > 0
    assert layer.fused_attn
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_both_ways_agree() -> None:
    prepared = _prepared("bfloat16")
    images = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    fused = prepared.logits(images)
    use_plain_attention(prepared.model, True)
    assert torch.allclose(prepared.logits(images), fused, atol=0.02)


@pytest.mark.parametrize("plain", [False, True])
def test_a_checkpoint_says_which_way_the_trial_goes(plain: bool) -> None:
    one, other = _prepared("bfloat16"), _prepared("bfloat16")
    use_plain_attention(one.model, plain)
    use_plain_attention(other.model, not plain)
    optimizers = [make_optimizer(prepared.model, CONFIG) for prepared in (one, other)]
    restore_training_state(training_state(one.model, optimizers[0]), other.model, optimizers[1])
    assert has_plain_attention(other.model) is plain
