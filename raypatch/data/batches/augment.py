"""Augmentation of whole batches on their device,
and the other steps from stored uint8 to the model's input.

Random numbers are drawn on the CPU for a whole epoch (`draw_parameters`), a fixed number per image,
and only then used (`augment`). So a seed fixes what happens to each image, whatever the device and
however the batch is divided. Nothing in `to_float`, `augment` and `normalize` waits for the device
or depends on values: all of it can be captured in a CUDA graph.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""torchvision's weights of red, green and blue in the brightness of a pixel."""

_CROP_AREA = (0.8, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10
_MAX_DEGREES = 15.0
_JITTER = (0.8, 1.2)
_BENT_PLACES = 3
_BENT_BY = 10 / 512
_UNBENT = 10
"""Columns of parameters without an elastic deformation."""

_Symmetry = tuple[tuple[int, ...], tuple[int, ...]]


def channels_first(images: NDArray[np.uint8], *, dimensions: int) -> Tensor:
    """Turn stored images (N, H, W), (N, H, W, 3) or (N, D, H, W)
    into a uint8 tensor (N, C, *spatial).
    """
    tensor = torch.from_numpy(images)
    is_grey = images.ndim == dimensions + 1
    return tensor.unsqueeze(1) if is_grey else tensor.movedim(-1, 1).contiguous()


def to_float(images: Tensor) -> Tensor:
    """Bring uint8 0..255 to float32 0..1; float passes unchanged."""
    return images if images.is_floating_point() else images.float().div_(255)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (images - mean) / std per channel as (B, 3, *spatial);
    one grey channel is repeated to three.

    images: (B, C, *spatial) with C 1 or 3. mean, std: (3,), on the same device.
    """
    shape = (-1,) + (1,) * (images.ndim - 2)
    return (images - mean.view(shape)).div_(std.view(shape))


def draw_parameters(
    count: int,
    shape: Sequence[int],
    generator: torch.Generator,
    *,
    mirror_safe: bool,
    elastic: bool = False,
) -> Tensor:
    """Draw what happens to each of `count` images of spatial shape (H, W)
    or (D, H, W), square or cubic.

    Returns a CPU tensor with one row per image, to be indexed and moved like the images. 2D:
    float32 (count, 10) of top, left, height, width of the crop (pixels), flip (-1 or 1),
    counter-clockwise angle (degrees), and factor and share of the mean of two colour steps
    (`_colour_steps`). 3D: int64 (count, 4), see `_draw_symmetries`.

    The 2D recipe is the published code's of the patch-size study (arXiv 2602.18614): crop of .8 to
    1 of the area and ratio 3/4 to 4/3, drawn as torchvision's RandomResizedCrop does, horizontal
    flip with probability .5, rotation by up to 15 degrees, brightness and contrast factors .8 to
    1.2 in random order. Its 3D recipe flips and turns in one plane; we take all symmetries of the
    cube. Where `mirror_safe` is False, nothing is mirrored.

    elastic, in 2D: 18 more columns, by how much each place of a 3 x 3 grid is moved down and across,
    normal with a deviation of 10 pixels in 512, and between them bicubic (Ronneberger et al., U-Net, 2015).
    """
    if len(shape) == 3:
        return _draw_symmetries(count, shape[0], generator, mirror_safe=mirror_safe)
    edge = shape[0]
    # In float64, and the same number for every image, whatever comes of them.
    draws = torch.rand(count, 2 * _CROP_ATTEMPTS + 7, generator=generator, dtype=torch.float64)
    area_draws = draws[:, :_CROP_ATTEMPTS]
    ratio_draws = draws[:, _CROP_ATTEMPTS : 2 * _CROP_ATTEMPTS]
    height, width = _draw_crops(area_draws, ratio_draws, edge)
    top_draw, left_draw, flip_draw, angle_draw, brightness_draw, contrast_draw, order_draw = draws[
        :, 2 * _CROP_ATTEMPTS :
    ].unbind(1)
    top = (top_draw * (edge - height + 1)).floor()
    left = (left_draw * (edge - width + 1)).floor()
    flip = 1.0 - 2.0 * ((flip_draw < 0.5) & mirror_safe)
    angle = (2 * angle_draw - 1) * _MAX_DEGREES
    brightness = _between(brightness_draw, _JITTER)
    contrast = _between(contrast_draw, _JITTER)
    colours = _colour_steps(brightness, contrast, contrast_first=order_draw < 0.5)
    parameters = torch.stack([top, left, height, width, flip, angle, *colours], dim=1).float()
    if not elastic:
        return parameters
    moved = torch.randn(count, 2 * _BENT_PLACES**2, generator=generator) * _BENT_BY
    return torch.cat([parameters, moved], dim=1)


def augment(images: Tensor, parameters: Tensor) -> Tensor:
    """Apply drawn parameters: (B, C, *spatial), uint8 or float 0..1,
    to float32 (B, C, *spatial) in 0..1.

    In 2D each operation equals torchvision's (crop and rotation bilinear,
    outside of the image zero), but crop, flip and rotation are sampled in
    one interpolation where a chain of operations would blur twice.
    """
    if images.ndim == 5:
        return to_float(_apply_symmetries(images, parameters))
    return _apply_colours(_apply_geometry(to_float(images), parameters), parameters[:, 6:10])


def augment_masks(masks: Tensor, parameters: Tensor) -> Tensor:
    """Move masks (B, H, W) uint8 as `augment` moves their images, 2D; outside of the image is class 0."""
    place, presence = _places(masks.shape[-1], parameters)
    # A class number is exact as a float, and the nearest pixel's is taken over as it is.
    moved = F.grid_sample(masks.unsqueeze(1).float(), place, mode="nearest", align_corners=False)[:, 0]
    return (moved * (presence >= 0.5)).to(masks.dtype)


def _between(draw: Tensor, limits: tuple[float, float]) -> Tensor:
    return limits[0] + draw * (limits[1] - limits[0])


def _draw_crops(area_draws: Tensor, ratio_draws: Tensor, edge: int) -> tuple[Tensor, Tensor]:
    """Heights and widths of the first of the attempts that fits into the image,
    or the whole image if none does.
    """
    area = _between(area_draws, _CROP_AREA) * edge**2
    # Evenly in the logarithm: 3/4 is then as likely as 4/3.
    ratio = _between(ratio_draws, (math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1]))).exp()
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width <= edge) & (height <= edge)
    # argmax gives the first of equals: the first attempt that fits.
    first = fits.byte().argmax(dim=1, keepdim=True)
    some = fits.any(dim=1)
    whole = torch.full_like(some, edge, dtype=area.dtype)
    return (
        torch.where(some, height.gather(1, first).squeeze(1), whole),
        torch.where(some, width.gather(1, first).squeeze(1), whole),
    )


def _colour_steps(
    brightness: Tensor,
    contrast: Tensor,
    *,
    contrast_first: Tensor,
) -> tuple[Tensor, ...]:
    """Two steps `clamp(factor * image + share * mean)`:
    brightness has share 0, contrast has share 1 - factor.
    """
    none = torch.zeros_like(brightness)
    return (
        torch.where(contrast_first, contrast, brightness),
        torch.where(contrast_first, 1 - contrast, none),
        torch.where(contrast_first, brightness, contrast),
        torch.where(contrast_first, none, 1 - contrast),
    )


def _draw_symmetries(
    count: int,
    edge: int,
    generator: torch.Generator,
    *,
    mirror_safe: bool,
) -> Tensor:
    """Draw from the 48 symmetries of the cube, or from the 24 of them that are rotations.

    Returns int64 (count, 4): where a voxel comes from in the
    flattened volume is steps . (i, j, k) + offset.
    """
    rotations, mirrors = _cube_symmetries()
    symmetries = torch.tensor([*rotations, *mirrors] if mirror_safe else rotations)
    drawn = torch.randint(len(symmetries), (count,), generator=generator)
    axes, signs = symmetries[drawn].unbind(1)
    strides = edge ** (2 - axes)
    offset = ((signs < 0) * strides).sum(dim=1, keepdim=True) * (edge - 1)
    return torch.cat([signs * strides, offset], dim=1)


def _cube_symmetries() -> tuple[list[_Symmetry], list[_Symmetry]]:
    """The rotations and the mirrorings of the cube, each as source axes and their directions."""
    rotations: list[_Symmetry] = []
    mirrors: list[_Symmetry] = []
    for axes in itertools.permutations(range(3)):
        odd = sum(a > b for a, b in itertools.combinations(axes, 2)) % 2
        for signs in itertools.product((1, -1), repeat=3):
            # A rotation has determinant 1: the sign of the permutation times those of the axes.
            is_rotation = math.prod(signs) == (-1 if odd else 1)
            if is_rotation:
                rotations.append((axes, signs))
            else:
                mirrors.append((axes, signs))
    return rotations, mirrors


def _apply_symmetries(images: Tensor, parameters: Tensor) -> Tensor:
    """Turn and mirror (B, C, D, H, W) by one gather."""
    batch, channels, edge = images.shape[:3]
    line = torch.arange(edge, device=images.device)
    step, row, column, offset = parameters.view(batch, 4, 1, 1, 1).unbind(1)
    # (B, D, H, W): the place of each voxel's source in the flattened volume.
    source = offset + step * line[:, None, None] + (row * line[:, None] + column * line)
    source = source.view(batch, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, source).view_as(images)


def _apply_geometry(images: Tensor, parameters: Tensor) -> Tensor:
    """Crop, resize to the old size, flip and rotate (B, C, H, W) in one bilinear sampling.

    Positions are in torch's normalised coordinates: the outer edges of the image are at -1 and 1.
    """
    place, presence = _places(images.shape[-1], parameters)
    return F.grid_sample(images, place, align_corners=False) * presence.unsqueeze(1)


def _places(edge: int, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel of the result comes from, (B, H, W, 2) as (x, y), and how much of it there is, (B, H, W)."""
    corner, extent = parameters[:, :2].flip(1), parameters[:, 2:4].flip(1)  # (B, 2) as (x, y)
    flip, angle = parameters[:, 4], parameters[:, 5].deg2rad()
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([flip * cos, sin, -flip * sin, cos], dim=1)
    across, down = rotation.view(-1, 2, 1, 1, 2).unbind(1)
    line = (torch.arange(edge, device=parameters.device) * 2 + 1) / edge - 1
    # (B, H, W, 2) as (x, y) in the frame of the crop. No matrix product here: under autocast or
    # TF32 it would round the positions.
    place = across * line[:, None] + down * line[:, None, None]
    if parameters.shape[1] > _UNBENT:
        place = place + _bend(edge, parameters[:, _UNBENT:])
    # A bilinear sample beyond the outermost pixel centres fades into the zeros outside.
    presence = (edge / 2 + 0.5 - place.abs() * (edge / 2)).clamp(0, 1).prod(dim=3)
    low, high = (2 * corner + 1) / edge - 1, (2 * (corner + extent) - 1) / edge - 1
    centre, half = (2 * corner + extent) / edge - 1, extent / edge
    rows = (-1, 1, 1, 2)
    # Into the frame of the whole image, and never beyond the crop: outside of it lies zero.
    place = torch.addcmul(centre.view(rows), place, half.view(rows))
    return place.clamp(low.view(rows), high.view(rows)), presence


def _bend(edge: int, moved: Tensor) -> Tensor:
    """By how much each pixel is moved, (B, H, W, 2), of shares of the edge at the places of a grid."""
    grid = moved.view(-1, 2, _BENT_PLACES, _BENT_PLACES)
    smooth = F.interpolate(grid, size=(edge, edge), mode="bicubic", align_corners=True)
    # An edge is 2 wide in torch's coordinates.
    return 2 * smooth.permute(0, 2, 3, 1)


def _apply_colours(images: Tensor, parameters: Tensor) -> Tensor:
    steps = parameters.view(-1, 2, 2, 1, 1, 1)
    for number in range(2):
        factor, share = steps[:, number, 0], steps[:, number, 1]
        images = torch.addcmul(share * _mean_grey(images), images, factor).clamp_(0, 1)
    return images


def _mean_grey(images: Tensor) -> Tensor:
    """Mean brightness of each image, (B, 1, 1, 1)."""
    means = images.mean(dim=(2, 3), keepdim=True)
    if images.shape[1] == 1:
        return means
    red, green, blue = means[:, :1], means[:, 1:2], means[:, 2:]
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
