"""Patch embeddings at any patch size: pretrained kernels and positions resampled,
images widened to volumes.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resample_kernel(kernel: Tensor, size: int) -> Tensor:
    """Resample a patch kernel (D, C, h, w) to (D, C, size, size)
    by the pseudo-inverse of the patch's own resize.

    The result gives an enlarged patch the embedding of the original, exactly;
    of a shrunken patch the least-squares best (FlexiViT, Beyer et al. 2023,
    section 3.4). The resize is bicubic with antialiasing, as in timm. It is
    separable, so the pseudo-inverse is taken per axis, in float64 on the CPU.
    """
    height, width = kernel.shape[-2:]
    if (height, width) == (size, size):
        return kernel
    rows = torch.linalg.pinv(_resize_matrix(height, size))
    columns = torch.linalg.pinv(_resize_matrix(width, size))
    # On the CPU: some GPUs do float64 slowly, and the same bits should come out everywhere.
    resampled = torch.einsum("dchw,hi,wj->dcij", kernel.to("cpu", torch.float64), rows, columns)
    return resampled.to(kernel)


def _resize_matrix(old: int, new: int) -> Tensor:
    """The (new, old) float64 matrix that resizes a line of `old` pixels to `new`:
    the resized unit vectors.
    """
    # (1, 1, old, old): row i is unit vector i, so that only the width is to be resized.
    unit = torch.eye(old, dtype=torch.float64)[None, None]
    resized = F.interpolate(unit, size=(old, new), mode="bicubic", antialias=True, align_corners=False)
    return resized[0, 0].T


def inflate_kernel(kernel: Tensor, inflation: Literal["repeat", "centre"] = "repeat") -> Tensor:
    """Widen a kernel (D, C, p, p) to cubes (D, C, p, p, p);
    a volume constant along depth keeps its embedding.

    repeat: the kernel in every slice, divided by p (I3D, Carreira &
    Zisserman 2017, section 2.4). centre: the kernel on the central slice
    p // 2, zeros elsewhere (ViViT, Arnab et al. 2021, section 3.4).
    """
    depth = kernel.shape[-1]
    if inflation == "repeat":
        return (kernel / depth).unsqueeze(2).repeat(1, 1, depth, 1, 1)
    cubes = kernel.new_zeros(*kernel.shape[:2], depth, *kernel.shape[2:])
    cubes[:, :, depth // 2] = kernel
    return cubes


def resample_positions(positions: Tensor, grid: tuple[int, ...], *, prefix: int) -> Tensor:
    """Resample learned positions (1, prefix + g * g, D) to (1, prefix + prod(grid), D),
    depth slowest in 3D.

    In plane bicubic with antialiasing, as in timm; along depth, which the pretrained model does not
    know, repeated. The first `prefix` positions (class token, registers) are kept. Raises
    ValueError when the rest is no square.
    """
    count = positions.shape[1] - prefix
    edge = math.isqrt(max(count, 0))
    if edge == 0 or edge * edge != count:
        raise ValueError(
            f"{positions.shape[1]} positions are no square grid behind {prefix} prefix tokens",
        )
    plane = positions[:, prefix:]  # (1, g * g, D)
    # Left alone at the native size: even an identical resize would round.
    if grid[-2:] != (edge, edge):
        image = plane.float().reshape(1, edge, edge, -1).permute(0, 3, 1, 2)  # (1, D, g, g)
        image = F.interpolate(image, size=grid[-2:], mode="bicubic", antialias=True, align_corners=False)
        plane = image.flatten(2).transpose(1, 2).to(positions)
    return torch.cat([positions[:, :prefix], plane.repeat(1, math.prod(grid[:-2]), 1)], dim=1)


def resize_positions(positions: Tensor, grid: tuple[int, ...], *, prefix: int) -> Tensor:
    """Resize positions (1, prefix + g^D, width) of a square or cubic grid to another grid of as many dimensions.

    The result has a gradient. Over images as `resample_positions`, over volumes trilinear.
    """
    if len(grid) == 2:
        return resample_positions(positions, grid, prefix=prefix)
    edge = round((positions.shape[1] - prefix) ** (1 / 3))
    cube = positions[:, prefix:].reshape(1, edge, edge, edge, -1).permute(0, 4, 1, 2, 3)
    cube = F.interpolate(cube, size=grid, mode="trilinear", align_corners=False)
    return torch.cat([positions[:, :prefix], cube.flatten(2).transpose(1, 2)], dim=1)


class VolumeEmbed(nn.Module):
    """Embed the cubes of a volume: (B, C, D, H, W) -> (B, N, width), depth slowest;
    each edge divisible by patch_size.

    The weight has the layout of a convolution, (width, C, p, p, p), and its customary
    initialisation; the product is one matrix multiplication over the cubes, since convolutions over
    volumes are slow for large strides: with a batch of 8 at 28 voxels, forward and backward on one
    core, 10 instead of 26 ms at p=14 and 65 instead of 206 ms at p=28.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        patch_size: int,
        *,
        bias: bool,
        norm: nn.Module,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, kernel_size=patch_size, stride=patch_size, bias=bias)
        self.norm = norm

    def forward(self, volume: Tensor) -> Tensor:
        cubes = cut_cubes(volume, self.proj.kernel_size[0])  # (B, N, C * p^3)
        embedded: Tensor = self.norm(F.linear(cubes, self.proj.weight.flatten(1), self.proj.bias))
        return embedded


def cut_cubes(volume: Tensor, edge: int) -> Tensor:
    """Cut a volume (B, C, D, H, W) into cubes (B, N, C * edge^3), depth slowest;
    every side divisible by `edge`.
    """
    batch, channels, *sides = volume.shape
    split: list[int] = []
    for side in sides:
        split += [side // edge, edge]
    cubes = volume.reshape(batch, channels, *split)  # (B, C, d, p, h, p, w, p)
    return cubes.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, channels * edge**3)
