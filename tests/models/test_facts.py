"""The cost of a model by formula equals what two libraries count, and the table of the reference facts."""

import subprocess
import sys

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from raypatch.config import TrialConfig
from raypatch.models import flops
from raypatch.models.build import construct
from raypatch.models.families.plain_vit_cost import count_cost
from raypatch.models.flops import count_with_fvcore, model_facts

# (dimensions, patch size, tokens, GFLOPs, GFLOPs without attention) of ViT-S with two classes, 2 x multiply-accumulates
TABLE = [
    (2, 28, 1, 2 * 0.0434, 2 * 0.0434),
    (2, 14, 4, 2 * 0.1073, 2 * 0.1071),
    (2, 7, 16, 2 * 0.3645, 2 * 0.3619),
    (2, 4, 49, 2 * 1.086, 2 * 1.063),
    (2, 2, 196, 2 * 4.542, 2 * 4.184),
    (2, 1, 784, 2 * 22.35, 2 * 16.67),
    (3, 28, 1, 0.1356, 0.1355),
    (3, 14, 8, 0.434, 0.433),
    (3, 7, 64, 2.889, 2.811),
    (3, 4, 343, 16.84, 14.66),
    (3, 2, 2744, 255.5, 116.6),
    (3, 1, 21952, 9815.3, 932.3),
]


def small(patch_size: int, **fields) -> TrialConfig:
    return TrialConfig(**{"dataset": "phantom2d", "model": "vit_small_patch16_224", "patch_size": patch_size, **fields})


def count_with_torch(name: str, size: int, patch_size: int, dimensions: int) -> float:
    """GFLOPs by torch's counter, on the meta device."""
    with torch.device("meta"):
        config = small(patch_size, model=name, image_size=size)
        model = construct(config, dimensions=dimensions, outputs=2).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, *[size] * dimensions))
    return 1e-9 * counter.get_total_flops()


@pytest.mark.parametrize(("dimensions", "patch_size", "tokens", "gflops", "without_attention"), TABLE)
def test_formula_gives_the_reference_table(dimensions, patch_size, tokens, gflops, without_attention):
    facts = model_facts(small(patch_size), dimensions=dimensions, outputs=2)
    assert facts.tokens == tokens
    assert facts.gflops == pytest.approx(gflops, rel=0.01)
    assert facts.gflops_without_attention == pytest.approx(without_attention, rel=0.01)


@pytest.mark.parametrize(("dimensions", "patch_size"), [row[:2] for row in TABLE])
def test_formula_equals_torchs_count(dimensions, patch_size):
    facts = model_facts(small(patch_size), dimensions=dimensions, outputs=2)
    counted = count_with_torch("vit_small_patch16_224", 28, patch_size, dimensions)
    assert facts.gflops == pytest.approx(counted, rel=1e-6)


@pytest.mark.parametrize(("dimensions", "patch_size"), [(2, 28), (2, 7), (2, 2), (3, 28), (3, 14), (3, 7)])
def test_formula_equals_fvcores_count(dimensions, patch_size):
    model = construct(small(patch_size), dimensions=dimensions, outputs=2)
    counted = count_with_fvcore(model, (3, *[28] * dimensions))
    assert count_cost(model).gflops == pytest.approx(counted, rel=1e-6)


def test_parameters_are_those_of_the_built_model():
    model = timm.create_model("vit_small_patch16_224", img_size=28, patch_size=4, num_classes=9)
    facts = model_facts(small(4), dimensions=2, outputs=9)
    assert facts.parameters == sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "vit_small_patch16_36x1_224"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_registers_and_every_pooling_are_counted(name, dimensions):
    facts = model_facts(small(7, model=name), dimensions=dimensions, outputs=2)
    assert facts.gflops == pytest.approx(count_with_torch(name, 28, 7, dimensions), rel=1e-6)


@pytest.mark.slow
def test_formula_holds_for_every_model_that_works():
    wrong = {}
    for name in timm.list_models(module="vision_transformer") + timm.list_models(module="deit"):
        if "distilled" in name:
            continue
        facts = model_facts(small(14, model=name), dimensions=2, outputs=2)
        counted = count_with_torch(name, 28, 14, 2)
        if facts.gflops != pytest.approx(counted, rel=1e-6):
            wrong[name] = (facts.gflops, counted)
    assert not wrong


def test_cost_needs_neither_fvcore_nor_ray():
    code = (
        "import sys, raypatch.models.flops; print({'ray', 'fvcore', 'medmnist', 'pandas', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "resnet18", "torchvision/alexnet", "test_convnext"])
def test_a_model_is_counted_once_and_its_outputs_are_added_exactly(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops, "_KNOWN", {})
    monkeypatch.setattr(flops, "_FIRST", {})
    patch_size = 16 if "vit" in model else None
    config = small(16, model=model, image_size=64).model_copy(update={"patch_size": patch_size})
    model_facts(config, dimensions=2, outputs=7)
    constructed: list[int] = []
    monkeypatch.setattr(flops, "construct", lambda *_, **how: constructed.append(how["outputs"]))
    found = [model_facts(config, dimensions=2, outputs=outputs) for outputs in (2, 14)]
    assert not constructed
    monkeypatch.undo()
    assert found == [flops._count(config, dimensions=2, outputs=outputs) for outputs in (2, 14)]
