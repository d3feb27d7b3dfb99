"""From images of any shape to squares and cubes, in float, with masks in the same geometry."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def fit(
    image: Tensor, dimensions: int, size: int, spacing: Sequence[float] | None, shape: str, step: float | None
) -> Tensor:
    """Bring (*edges) or (*edges, 3) float to (size,) * dimensions, colours last as they came.

    spacing: mm along each axis, None for equal ones. shape: pad keeps the aspect and fills with 0,
    squeeze stretches. step: mm per pixel to bring it to, beyond which it is cut; None fills the
    size. Bilinear, trilinear for volumes, each axis low-pass filtered where it shrinks.
    """
    in_colour = image.ndim > dimensions
    planes = image.movedim(-1, 0) if in_colour else image[None]
    edges = _inner_edges(planes.shape[1:], size, spacing, shape, step)
    resized = _resample(planes, edges)
    fitted = _centre(resized, size)
    return fitted.movedim(0, -1).contiguous() if in_colour else fitted[0]


def fit_mask(mask: Tensor, size: int, spacing: Sequence[float] | None, shape: str, step: float | None) -> Tensor:
    """Bring classes (*edges) uint8 to (size,) * dimensions by the nearest, as `fit` does with its image."""
    edges = _inner_edges(mask.shape, size, spacing, shape, step)
    if edges != tuple(mask.shape):
        mask = F.interpolate(mask[None, None].float(), size=edges, mode="nearest-exact")[0, 0].byte()
    return _centre(mask[None], size)[0]


def unfit(
    planes: Tensor, edges: Sequence[int], spacing: Sequence[float] | None, shape: str, step: float | None
) -> Tensor:
    """Bring (C, size, size) float, in the geometry that `fit` made of a picture (*edges), back to (C, *edges).

    Bilinear; what `fit` cut away is 0.
    """
    size = planes.shape[-1]
    inner = _inner_edges(edges, size, spacing, shape, step)
    for axis, edge in enumerate(inner, start=1):
        if edge < size:
            planes = planes.narrow(axis, (size - edge) // 2, edge)
    # As `_centre` cut them: of an odd rest the larger half comes after the image.
    margins: list[int] = []
    for edge in reversed(inner):
        before = max(0, (edge - size) // 2)
        margins += [before, max(0, edge - size) - before]
    whole = F.pad(planes, margins)
    return F.interpolate(whole[None], size=tuple(edges), mode="bilinear", antialias=True)[0]


def _inner_edges(
    edges: Sequence[int], size: int, spacing: Sequence[float] | None, shape: str, step: float | None
) -> tuple[int, ...]:
    """The edges that the image itself has, before it is padded or cut."""
    if shape == "squeeze":
        return (size,) * len(edges)
    lengths = list(map(float, edges))
    if spacing is not None:
        lengths = [edge * each for edge, each in zip(edges, spacing, strict=True)]
    scale = size / max(lengths) if step is None else 1 / step
    return tuple(max(1, round(length * scale)) for length in lengths)


def _resample(planes: Tensor, edges: tuple[int, ...]) -> Tensor:
    """Resample (C, *spatial) to `edges`."""
    if tuple(planes.shape[1:]) == edges:
        return planes
    channels, *spatial = planes.shape
    stack = planes.reshape(1, -1, *spatial[-2:])
    stack = F.interpolate(stack, size=edges[-2:], mode="bilinear", antialias=True)
    if len(edges) == 2:
        return stack.view(channels, *edges)
    # torch filters planes only: the depth axis is done as the height of a plane of all other pixels.
    pixels = edges[-2] * edges[-1]
    depth = stack.view(channels, 1, spatial[0], pixels)
    depth = F.interpolate(depth, size=(edges[0], pixels), mode="bilinear", antialias=True)
    return depth.view(channels, *edges)


def _centre(planes: Tensor, size: int) -> Tensor:
    """Pad (C, *spatial) with 0, or cut it, to `size` around its centre."""
    for axis in range(1, planes.ndim):
        edge = planes.shape[axis]
        if edge > size:
            planes = planes.narrow(axis, (edge - size) // 2, size)
    margins: list[int] = []
    # torch wants the last axis first. Of an odd rest the larger half comes after the image.
    for edge in reversed(planes.shape[1:]):
        before = (size - edge) // 2
        margins += [before, size - edge - before]
    return F.pad(planes, margins) if any(margins) else planes
