"""The rules of MedMNIST's layout for images, and the way out for arrays that break them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypatch.data.layout.archive import Archive


def check_images(archive: Archive, key: str) -> tuple[int, ...]:
    """Return the shape of an array of images: (N, H, W), (N, H, W, 3) or (N, D, H, W),
    square or cubic, uint8.
    """
    shape, dtype = archive.header(key)
    if dtype != np.uint8:
        raise archive.error(
            key,
            f"is {dtype} but must be uint8, 0 to 255; {_explain_conversion(archive.array(key), dtype)}",
        )
    if len(shape) not in (3, 4) or shape[-1] == 1:
        raise archive.error(key, f"has shape {shape}; {_explain_layout(shape)}")
    if shape[0] == 0:
        raise archive.error(key, "is empty; each of train, val and test needs images")
    # (N, H, W, 3); a volume of 3 slices is no cube that anybody has.
    in_colour = len(shape) == 4 and shape[-1] == 3
    edges = shape[1:-1] if in_colour else shape[1:]
    if len(set(edges)) > 1:
        # Edges that differ are more often an axis of channels in the wrong place.
        explanation = _explain_channels(shape)
        if explanation:
            raise archive.error(key, f"has shape {shape}; {explanation}")
        raise archive.error(
            key,
            f"has images of {' x '.join(map(str, edges))}; all edges must be equal: pad or resize them",
        )
    return shape


def _explain_layout(shape: tuple[int, ...]) -> str:
    explanation = _explain_channels(shape)
    if explanation:
        return explanation
    return "images must be (N, H, W) grey, (N, H, W, 3) RGB or (N, D, H, W) volumes"


def _explain_channels(shape: tuple[int, ...]) -> str | None:
    """The way out where an axis is one of channels, in the wrong place or of a wrong number;
    None where none is.
    """
    colour_volumes = "colour volumes are not supported: turn them to grey, (N, D, H, W)"
    if len(shape) == 5:
        if shape[-1] == 1:
            return "drop the last axis with images[..., 0]"
        if shape[1] == 1:
            return "grey volumes have no axis of channels: drop axis 1 with images[:, 0]"
        has_colours = bool({3, 4} & {shape[1], shape[-1]})
        return colour_volumes if has_colours else None
    if len(shape) != 4:
        return None
    if shape[-1] == 1:
        return "drop the last axis with images[..., 0]"
    first, last, edge = shape[1], shape[-1], shape[2]
    if first == 1:
        return "grey images have no axis of channels: drop axis 1 with images[:, 0]"
    if first in (3, 4) and edge > 4:
        to_rgb = "" if first == 3 else "[..., :3], which drops the alpha channel"
        return f"channels go last: images.transpose(0, 2, 3, 1){to_rgb} (a volume of {first} slices is no cube)"
    if last == 4 and edge > 4:
        return "drop the alpha channel with images[..., :3]"
    if last == 2 and edge > 4:
        return "images are grey or RGB, of 1 or 3 channels: keep one of the two with images[..., 0]"
    if first == 2 and edge > 4:
        return "images are grey or RGB, of 1 or 3 channels: keep one of the two with images[:, 0]"
    return None


def _explain_conversion(values: NDArray[Any], dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "convert with images.astype('uint8') * 255"
    if dtype.kind not in "iuf":
        return "scale the values to 0..255 and convert with .astype('uint8')"
    if not np.isfinite(values).all():
        return "it also holds NaN or infinity: replace those values first, then scale to 0..255 and convert"
    low, high = values.min(initial=0), values.max(initial=0)
    if dtype.kind != "f" and low >= 0 and high <= 255:
        return f"its values lie in {low:g}..{high:g}: convert with images.astype('uint8')"
    scaled = "(images - images.min()) / np.ptp(images) * 255"
    if low >= 0 and high <= 1:
        scaled = "images * 255"
    return (
        f"its values lie in {low:g}..{high:g}: convert with ({scaled}).round().astype('uint8'), the same for all splits"
    )
