"""Resampling of kernels and positions, and the embedding of volumes."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import nn

from raypatch.models.resample import (
    VolumeEmbed,
    cut_cubes,
    inflate_kernel,
    resample_kernel,
    resample_positions,
)

SIZES = (1, 2, 4, 7, 14, 28)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("old", "new"), [(16, 16), (16, 17), (16, 28), (16, 32), (7, 14), (4, 14), (2, 7), (1, 4)])
def test_enlarged_patch_keeps_its_embedding(old, new):
    kernel, patches = drawn(8, 3, old, old), drawn(5, 3, old, old)
    enlarged = F.interpolate(patches, size=(new, new), mode="bicubic", antialias=True)
    before = F.conv2d(patches, kernel)
    after = F.conv2d(enlarged, resample_kernel(kernel, new))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


@pytest.mark.parametrize("size", SIZES)
def test_kernel_equals_timms(size):
    kernel = drawn(8, 3, 16, 16)
    ours, timms = resample_kernel(kernel, size), resample_patch_embed(kernel, [size, size])
    torch.testing.assert_close(ours, timms, rtol=0, atol=1e-5 * timms.abs().max().item())


def test_kernel_need_not_be_square_and_keeps_its_type():
    kernel = drawn(4, 3, 8, 16).bfloat16()
    resampled = resample_kernel(kernel, 12)
    assert resampled.shape == (4, 3, 12, 12)
    assert resampled.dtype == torch.bfloat16
    assert resample_kernel(kernel[..., :8], 8) is not None


@pytest.mark.parametrize("size", SIZES)
def test_positions_equal_timms_in_plane(size):
    positions = drawn(1, 1 + 14 * 14, 8)
    ours = resample_positions(positions, (size, size), prefix=1)
    assert torch.equal(ours, resample_abs_pos_embed(positions, [size, size], num_prefix_tokens=1))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_every_slice_of_a_volume_has_the_positions_of_the_image(prefix):
    positions = drawn(1, prefix + 14 * 14, 8)
    image = resample_positions(positions, (7, 7), prefix=prefix)
    volume = resample_positions(positions, (7, 7, 7), prefix=prefix)
    assert torch.equal(volume[:, :prefix], positions[:, :prefix])
    slices = volume[:, prefix:].reshape(7, 7 * 7, 8)  # (depth, H * W, D): depth is slowest
    assert all(torch.equal(one, image[0, prefix:]) for one in slices)


@pytest.mark.parametrize("count", [1, 4, 51])
def test_positions_without_a_square_grid_are_refused(count):
    with pytest.raises(ValueError, match="no square grid behind 1 prefix"):
        resample_positions(drawn(1, count, 8), (7, 7), prefix=1)


@pytest.mark.parametrize("inflation", ["repeat", "centre"])
@pytest.mark.parametrize("size", SIZES)
def test_volume_constant_along_depth_embeds_like_its_slice(size, inflation):
    kernel, image = resample_kernel(drawn(8, 3, 16, 16), size), drawn(2, 3, 28, 28)
    grid = 28 // size
    flat = F.conv2d(image, kernel, stride=size).flatten(2).transpose(1, 2)  # (B, g * g, D)
    embed = VolumeEmbed(3, 8, size, bias=False, norm=nn.Identity())
    with torch.no_grad():
        embed.proj.weight.copy_(inflate_kernel(kernel, inflation))
        volume = embed(image[:, :, None].expand(-1, -1, 28, -1, -1))
    assert volume.shape == (2, grid**3, 8)
    slices = volume.reshape(2, grid, grid * grid, 8)
    tolerance = 1e-5 * flat.abs().max().item()
    torch.testing.assert_close(slices, flat[:, None].expand_as(slices), rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [1, 4, 14])
def test_volume_embedding_is_the_strided_convolution(size):
    embed, volume = VolumeEmbed(3, 8, size, bias=True, norm=nn.Identity()), drawn(2, 3, 28, 28, 28)
    expected = embed.proj(volume).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(volume), expected, rtol=1e-4, atol=1e-4)


def test_cubes_come_in_the_order_of_the_volume():
    volume = torch.arange(4**3).reshape(1, 1, 4, 4, 4)
    cubes = cut_cubes(volume, 2)
    assert cubes.shape == (1, 8, 8)
    assert torch.equal(cubes[0, 0], volume[0, 0, :2, :2, :2].flatten())
    assert torch.equal(cubes[0, 1], volume[0, 0, :2, :2, 2:].flatten())
    assert torch.equal(cubes[0, 4], volume[0, 0, 2:, :2, :2].flatten())
