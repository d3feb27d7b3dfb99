"""Photometric changes of whole batches, each image by a strength of its own, for images and volumes alike.

Images are floats 0..1 (B, C, *spatial), strengths (B,). Each change is torchvision's function of the same name
(torchvision.transforms.v2.functional), but for volumes, where it sums over depth too.
"""

import math

import torch
from torch import Tensor

from raypatch.data.batches.augment import LUMA


def to_grey(images: Tensor) -> Tensor:
    """Brightness (B, 1, *spatial): of three channels their weighted sum."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    brightness: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return brightness


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor."""
    return _blend(images, torch.zeros_like(images), factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply what differs from the mean brightness."""
    grey = to_grey(images)
    means = grey.flatten(1).mean(dim=1)
    return _blend(images, _per_image(means, images), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply what differs from grey; grey images have none, and stay."""
    return images if images.shape[1] == 1 else _blend(images, to_grey(images), factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` of a whole turn; grey images have none, and stay."""
    if images.shape[1] == 1:
        return images
    hue, saturation, value = _to_hsv(images)
    return _from_hsv((hue + _per_image(shift, images)) % 1.0, saturation, value)


def solarise(images: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert what is at least as bright as the threshold."""
    return torch.where(images >= threshold, 1 - images, images)


def blur(images: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
    """Gaussian blur with `sigma` pixels, cut off `reach` pixels away; the image is mirrored at its border.

    reach: below the image's edge.
    """
    for axis in range(2, images.ndim):
        edge = images.shape[axis]
        matrix = _blur_matrix(edge, sigma, reach)  # (B, edge, edge)
        images = along_axis(images, matrix, axis)
    return images


def along_axis(images: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one axis of each image (B, C, ..., n, ...) by a matrix of its own (B, m, n): (B, C, ..., m, ...)."""
    moved = images.movedim(axis, -1)
    between = moved.shape[1:-1]
    product = moved.flatten(1, -2) @ matrix.mT  # (B, C * rest, m)
    back: Tensor = product.unflatten(1, between).movedim(-1, axis)
    return back


def _blur_matrix(edge: int, sigma: Tensor, reach: int) -> Tensor:
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    weights = weights / weights.sum(dim=1, keepdim=True)  # (B, 2 * reach + 1)
    # (edge, 2 * reach + 1): which pixel each weight is for; beyond the border it is the mirrored one.
    source = (torch.arange(edge, device=sigma.device)[:, None] + offsets).abs()
    source = torch.where(source >= edge, 2 * (edge - 1) - source, source)
    matrix = weights.new_zeros(len(sigma), edge, edge)
    every = source.expand(len(sigma), -1, -1)
    return matrix.scatter_add_(2, every, weights[:, None].expand_as(every).contiguous())


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (images.ndim - 1))


def _blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    of_images = _per_image(share, images)
    return (of_images * images + (1 - of_images) * other).clamp(0, 1)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value, (B, 1, *spatial) each, hue as a share of the turn."""
    red, green, blue = images.split(1, dim=1)
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    some = torch.where(chroma > 0, chroma, 1)
    saturation = chroma / torch.where(chroma > 0, value, 1)
    hue = torch.where(
        value == red,
        (green - blue) / some,
        torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )
    return (hue / 6 + 1) % 1.0, saturation, value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """A channel is `value`, less what its distance from the hue takes away (Smith 1978)."""
    channels = []
    for turn in (5, 3, 1):
        place = (turn + hue * 6) % 6
        share = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(value - value * saturation * share)
    return torch.cat(channels, dim=1)


def blur_reach(sigma: float) -> int:
    """Pixels from which on a Gaussian of at most `sigma` pixels is next to nothing."""
    return max(1, math.ceil(3 * sigma))
