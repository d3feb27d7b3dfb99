"""Maps and what is measured of them: known values, and a model that looks at one place."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypatch.explain import saliency
from raypatch.explain.measure import deletion_insertion, mass_ratio, pointing
from raypatch.explain.saliency import (
    centre_maps,
    class_attention,
    enlarge,
    grad_cam,
    half_mass,
    has_class_attention,
    random_maps,
)
from raypatch.models.prepared import PreparedModel

from explained import random_images, tiny_prepared


@pytest.mark.parametrize("dimensions", [2, 3])
def test_class_attention_is_that_of_the_last_block(dimensions: int) -> None:
    prepared = tiny_prepared(dataset=f"phantom{dimensions}d", patch_size=14)
    images = random_images(dimensions=dimensions)
    found = class_attention(prepared, images)
    last = prepared.model.blocks[-1].attn  # type: ignore[union-attr,index]
    last.fused_attn = False
    seen: list[Tensor] = []
    last.attn_drop.register_forward_hook(lambda _, __, output: seen.append(output))
    prepared.logits(images)
    wanted = seen[0][:, :, 0, 1:]
    wanted = (wanted / wanted.sum(dim=-1, keepdim=True)).reshape(found.shape)
    assert found.shape == (3, last.num_heads, *(2,) * dimensions)
    assert np.allclose(found, wanted.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "resnet10t", "patch_size": None, "image_size": 32},
        {"head": "attention"},
        {"model": "vit_base_patch16_siglip_224", "image_size": 28, "patch_size": 14},
    ],
)
def test_only_a_class_token_that_the_head_reads_has_a_map(fields: dict[str, Any]) -> None:
    prepared = tiny_prepared(**fields)
    assert not has_class_attention(prepared)
    with pytest.raises(ValueError, match="no class token that its head reads"):
        class_attention(prepared, random_images())


class _Corner(nn.Module):
    """Its map is the image; class 1 is the brightness of the upper left quarter, class 0 the opposite."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.ones_(self.seen.weight)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.seen(images)
        half = seen.shape[-1] // 2
        bright = seen[:, 0, :half, :half].mean(dim=(1, 2))
        return torch.stack([-bright, bright], dim=1)


class _CornerFamily:
    def attention_tokens(self, model: nn.Module) -> None:
        return None

    def map_layer(self, model: nn.Module, *, dimensions: int) -> object:
        return SimpleNamespace(name="seen", as_map=lambda output: output)


def _corner() -> PreparedModel:
    facts = SimpleNamespace(tokens=None)
    cpu, zero, one = torch.device("cpu"), torch.zeros(3), torch.ones(3)
    family = _CornerFamily()
    return PreparedModel(_Corner(), family, facts, zero, one, cpu, "float32", image_size=8)  # type: ignore[arg-type]


def test_grad_cam_is_its_formula() -> None:
    pytest.importorskip("pytorch_grad_cam")
    prepared, images = _corner(), random_images(10, size=8)
    found, grid = grad_cam(prepared, images, np.ones(10, np.int64))
    # The gradient is even over the corner and the same for all: the map is the image, from 0 to 1.
    shown = images[:, 0].float() - images[:, 0].float().amin(dim=(1, 2), keepdim=True)
    assert grid == (8, 8)
    assert np.allclose(found, (shown / shown.amax(dim=(1, 2), keepdim=True)).numpy(), atol=1e-5)
    # Nothing in the image speaks for the other class.
    against, _ = grad_cam(prepared, images, np.zeros(10, np.int64))
    assert (against == 0).all()
    assert prepared.model.seen.weight.grad is None  # type: ignore[union-attr]
    assert not prepared.model.seen._forward_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dataset": "phantom3d", "patch_size": 14},
        {"model": "resnet10t", "patch_size": None, "image_size": 96, "seed": 1},
    ],
)
def test_grad_cam_of_real_models_has_the_inputs_size(fields: dict[str, Any]) -> None:
    pytest.importorskip("pytorch_grad_cam")
    prepared = tiny_prepared(**fields)
    dimensions = 3 if "dataset" in fields else 2
    # Some class has something that speaks for it.
    found, grid = grad_cam(prepared, random_images(2, dimensions), np.array([0, 1]))
    assert found.shape == (2, *(prepared.image_size,) * dimensions)
    assert len(set(grid)) == 1
    assert 0 <= found.min() <= found.max() <= 1
    assert found.max() > 0


def test_without_the_package_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "can_grad_cam", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'raypatch\[explain\]'"):
        grad_cam(_corner(), random_images(size=8), np.zeros(3, np.int64))


def test_half_of_the_mass_is_the_smallest_such_set() -> None:
    maps = np.array([[[0.1, 0.4], [0.3, 0.2]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]], np.float32)
    assert half_mass(maps).tolist() == [
        [[False, True], [True, False]],
        [[False, False], [True, False]],
        # Even: half of the places.
        [[True, True], [False, False]],
    ]


def test_pointing_and_mass_against_known_masks() -> None:
    maps = np.zeros((4, 2, 2), np.float32)
    maps[0] = [[4, 2], [1, 1]]
    maps[1] = [[1, 3], [3, 1]]
    masks = np.array([[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 0]]], bool)
    # The maximum is hit; one of two; of a map of zeros the mask's share; an empty mask has nothing to hit.
    assert pointing(maps, masks).tolist()[:3] == [1, 0.5, 0.5]
    assert mass_ratio(maps, masks).tolist()[:3] == [2, 1.5, 1]
    assert np.isnan([pointing(maps, masks)[3], mass_ratio(maps, masks)[3]]).all()
    with pytest.raises(ValueError, match="do not fit"):
        pointing(maps, masks[:, :1])


def test_random_and_even_maps_are_chance() -> None:
    masks = np.zeros((4000, 6, 6), bool)
    masks[:, :3, :2] = True
    found = random_maps(4000, (6, 6))
    assert pointing(found, masks).mean() == pytest.approx(1 / 6, abs=0.02)
    assert mass_ratio(found, masks).mean() == pytest.approx(1, abs=0.02)
    assert mass_ratio(np.ones_like(found), masks) == pytest.approx(1)


def test_a_map_of_what_decides_deletes_and_inserts_faster_than_one_of_the_rest() -> None:
    prepared = _corner()
    images = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
    images[:, :, :4, :4] = 200
    good = np.zeros((5, 8, 8), np.float32)
    good[:, :4, :4] = 1
    classes = np.ones(5, np.int64)
    probabilities = {name: deletion_insertion(prepared, images, maps, classes, lambda logits: logits.softmax(dim=1))
                     for name, maps in {"good": good, "bad": 1 - good, "none": 0 * good}.items()}  # fmt: skip
    deletion = {name: found[0].mean() for name, found in probabilities.items()}
    insertion = {name: found[1].mean() for name, found in probabilities.items()}
    assert deletion["good"] < deletion["none"] < deletion["bad"]
    assert insertion["good"] > insertion["none"] > insertion["bad"]
    # Until the last quarter the whole corner is there: logits of ±3 · 200/255.
    whole = 1 / (1 + np.exp(-2 * 3 * 200 / 255))
    assert 0.75 * whole < deletion["bad"] < whole


def test_maps_of_chance_and_of_the_middle_and_their_enlargement() -> None:
    centre = centre_maps(2, (5, 5, 5))
    assert centre.shape == (2, 5, 5, 5)
    assert centre[0, 2, 2, 2] == 1
    assert centre[0, 0, 4, 0] == pytest.approx(0)
    larger = enlarge(np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2), 4)
    assert larger.shape == (1, 4, 4, 4)
    assert (larger[0, 0, 0, 0], larger[0, 3, 3, 3]) == (0, 7)
