"""timm's other image models: what they take and refuse, their weights at other sizes, features and costs."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from raypatch.config import TrialConfig
from raypatch.models.build import build_model
from raypatch.models.families import find_family

# timm's own small models for tests: a CNN, one whose head is a convolution, Swin-like, EVA.
WITH_A_GRID = ("resnetv2_50x1_bit", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224")
SMALL = ("test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_nfnet", "test_mambaout")


def configured(model: str, **fields) -> TrialConfig:
    return TrialConfig(**{"dataset": "phantom2d", "model": model, "weights": "random", "image_size": 64, **fields})


def images(size: int = 64, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def saved(path: Path, model: str, **arguments) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        save_file(timm.create_model(model, **arguments).state_dict(), path)
    return path


@pytest.mark.parametrize("name", [*SMALL, *WITH_A_GRID])
def test_head_makes_logits_of_the_pooled_features(name):
    size = 224 if "224" in name else 64
    config = configured(name, image_size=size)
    model = build_model(config, dimensions=2, outputs=3, files={}).model.eval()
    family = find_family(name)
    with torch.no_grad():
        pooled = family.pooled(model, images(size))
        head = model.get_submodule(family.head_name(model))
        assert pooled.ndim == 2
        torch.testing.assert_close(head(pooled), model(images(size)))
