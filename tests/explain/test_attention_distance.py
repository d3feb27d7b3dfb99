"""How far attention looks: known values, the model's own attention, and any number of tokens in little memory."""

import pytest
import torch
from torch import Tensor

from raypatch.explain.attention import Attention
from raypatch.explain.attention_distance import attention_distance, attention_tokens, mean_attention_distance
from raypatch.models.prepared import PreparedModel

from explained import random_images, tiny_prepared


def _uniform(tokens: int, heads: int = 1) -> Attention:
    return Attention(torch.zeros(1, heads, tokens, 4), torch.zeros(1, heads, tokens, 4), scale=1.0)


def _random(tokens: int, images: int = 2, heads: int = 3) -> Attention:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, images, heads, tokens, 8, generator=generator)
    return Attention(query, key, scale=8**-0.5)


@pytest.mark.parametrize(("edge", "patch_size", "pixels"), [(14, 16, 116.49), (7, 4, 14.44), (14, 2, 14.56)])
def test_uniform_attention_has_the_mean_distance_of_the_grid(edge: int, patch_size: int, pixels: float) -> None:
    found = attention_distance(_uniform(edge**2), dimensions=2, patch_size=patch_size)
    assert found.item() == pytest.approx(pixels, abs=0.005)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_patches_that_attend_to_themselves_are_at_no_distance(dimensions: int) -> None:
    itself = 1000 * torch.eye(4**dimensions)[None, None]
    assert attention_distance(Attention(itself, itself, scale=1.0), dimensions=dimensions).item() == 0


def test_blocks_give_what_the_whole_gives() -> None:
    attention = _random(1 + 64)
    for renormalise in (True, False):
        whole = attention_distance(attention, dimensions=2, before=1, renormalise=renormalise)
        # Blocks of 10 rows: the last is smaller.
        blocks = attention_distance(attention, dimensions=2, before=1, renormalise=renormalise, block=10 * 6 * 65)
        assert torch.allclose(whole, blocks, rtol=1e-6)


def test_no_block_is_larger_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    rows = Attention.rows
    monkeypatch.setattr(
        Attention, "rows", lambda self, *block: (found := rows(self, *block), sizes.append(found.numel()))[0]
    )
    attention_distance(_random(512, images=1), dimensions=3, block=3 * 512 * 4)
    assert max(sizes) == 3 * 512 * 4
    assert sum(sizes) == 3 * 512 * 512


def test_without_its_class_token_a_row_sums_to_one_or_is_left_as_it_is() -> None:
    # Uniform over a class token and 4 patches: 4/5 of each row is on patches.
    one = attention_distance(_uniform(5), dimensions=2, before=1).item()
    left = attention_distance(_uniform(5), dimensions=2, before=1, renormalise=False).item()
    assert one == pytest.approx((2 + 2**0.5) / 4)
    assert left == pytest.approx(0.8 * one)


def _by_timm(prepared: PreparedModel, images: Tensor, patch_size: float) -> Tensor:
    """The same by another way: timm's products without fused attention, whole, and a loop over places."""
    model, layers = prepared.model, []
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: layers.append(output))
    with torch.inference_mode():
        model(prepared.inputs(images))
    before = model.num_prefix_tokens
    edge = round((layers[0].shape[-1] - before) ** 0.5)
    apart = torch.zeros(edge**2, edge**2)
    for i in range(edge**2):
        for j in range(edge**2):
            apart[i, j] = patch_size * ((i // edge - j // edge) ** 2 + (i % edge - j % edge) ** 2) ** 0.5
    found = []
    for attention in layers:
        patches = attention[..., before:, before:]
        patches = patches / patches.sum(dim=-1, keepdim=True)
        found.append((patches * apart).sum(dim=-1).mean(dim=(0, 2)))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("model", "patch_size", "before"),
    [("test_vit", 7, 1), ("deit_tiny_patch16_224", 14, 1), ("vit_small_patch14_reg4_dinov2", 14, 5)],
)
def test_a_models_distances_are_those_of_its_own_attention(model: str, patch_size: int, before: int) -> None:
    prepared = tiny_prepared(model, patch_size=patch_size)
    found = attention_tokens(prepared)
    assert found is not None
    assert found.before == before
    fused = [block.attn.fused_attn for block in prepared.model.blocks]  # type: ignore[union-attr]
    logits = prepared.logits(random_images())
    distances = mean_attention_distance(prepared, random_images())
    # Nothing about the model has changed.
    assert [block.attn.fused_attn for block in prepared.model.blocks] == fused == [True] * len(fused)  # type: ignore[union-attr]
    assert torch.equal(prepared.logits(random_images()), logits)
    wanted = _by_timm(prepared, random_images(), patch_size)
    assert distances.shape == wanted.shape
    assert torch.allclose(torch.from_numpy(distances).float(), wanted, rtol=1e-4)


def test_rotary_positions_are_in_what_is_seen() -> None:
    prepared = tiny_prepared("eva02_tiny_patch14_224", patch_size=None, image_size=56)
    distances = mean_attention_distance(prepared, random_images(size=56))
    wanted = _by_timm(prepared, random_images(size=56), 14)
    assert torch.allclose(torch.from_numpy(distances).float(), wanted, rtol=1e-4)


def test_volumes_and_batches() -> None:
    prepared = tiny_prepared(dataset="phantom3d", patch_size=14)
    images = random_images(5, dimensions=3)
    for block in prepared.model.blocks:  # type: ignore[union-attr]
        torch.nn.init.zeros_(block.attn.qkv.weight)
    distances = mean_attention_distance(prepared, images)
    # Of 8 patches each sees itself, 3 at an edge, 3 across a face, 1 across the cube.
    wanted = 14 * (3 + 3 * 2**0.5 + 3**0.5) / 8
    assert distances == pytest.approx(wanted, rel=1e-6)


def test_a_cnn_has_none() -> None:
    prepared = tiny_prepared("resnet10t", patch_size=None, image_size=32)
    assert attention_tokens(prepared) is None
    with pytest.raises(ValueError, match="no attention"):
        mean_attention_distance(prepared, random_images(size=32))
