"""Images brought to the size that a model sees, on their device, a batch or a split at a time.

Nothing here waits for the device or depends on values: all of it can be captured in a CUDA graph.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from raypatch.trial_fields.data import Resize

# Pixels turned to float at once when a whole split is resized.
_RESIZE_CHUNK = 2**24


def held_size(file_size: int, image_size: int, mode: Resize) -> int:
    """Return the edge at which a split is held in memory: the smaller of the file's and the model's.

    A batch is enlarged when it is used, which keeps 28 pixels at 28 though the model sees 224.
    """
    # What is to be padded is refused where it is larger, so it is always held as it comes.
    return file_size if mode in ("pad", "pad_mean") else min(file_size, image_size)


def resize_images(images: Tensor, size: int, mode: Resize) -> Tensor:
    """Bring (N, C, *spatial) to edge `size`; uint8 stays uint8 (rounded), float stays float.

    bilinear, bicubic: as Pillow's, each axis low-pass filtered where it shrinks; volumes along their
    depth too. nearest: the pixel under the centre of the new one. pad: centred on zeros. pad_mean
    leaves images as they are, as their border is known after normalisation alone (`pad_centred`).
    Raises ValueError when an image is too large to be padded.
    """
    spatial = images.shape[2:]
    if mode in ("pad", "pad_mean"):
        _require_room(spatial, size, mode)
    if mode == "pad_mean" or all(edge == size for edge in spatial):
        return images
    if mode == "pad":
        return pad_centred(images, size)
    if images.is_floating_point():
        return _resample(images, size, mode)
    # A split as floats would take four times its memory, so it is resized a part at a time.
    pixels_before = math.prod(images.shape[1:])
    pixels_after = images.shape[1] * size ** len(spatial)
    chunk = max(1, _RESIZE_CHUNK // max(pixels_before, pixels_after))
    resized = []
    for part in torch.split(images, chunk):
        # Clamped: bicubic overshoots at edges, and a byte would wrap around.
        resized.append(_resample(part.float(), size, mode).round_().clamp_(0, 255).byte())
    return torch.cat(resized)


def pad_centred(images: Tensor, size: int) -> Tensor:
    """Centre (N, C, *spatial) on zeros; of an odd rest the larger half comes after the image."""
    margins: list[int] = []
    # torch wants the last axis first.
    for edge in reversed(images.shape[2:]):
        before = (size - edge) // 2
        margins += [before, size - edge - before]
    return F.pad(images, margins)


def _require_room(spatial: Sequence[int], size: int, mode: Resize) -> None:
    if max(spatial) > size:
        raise ValueError(
            f"resize={mode} cannot bring {max(spatial)} pixels to image_size={size};"
            f" use bilinear or nearest, or image_size={max(spatial)} or more"
        )


def _resample(images: Tensor, size: int, mode: str) -> Tensor:
    if mode == "nearest":
        return F.interpolate(images, size=(size,) * (images.ndim - 2), mode="nearest-exact")
    batch, channels, *spatial = images.shape
    planes = images.reshape(batch, -1, *spatial[-2:])
    plane = F.interpolate(planes, size=(size, size), mode=mode, antialias=True)
    if len(spatial) == 2:
        return plane
    # torch filters planes only: the depth axis is done as the height of a plane whose width, all
    # pixels, stays.
    depth = plane.reshape(batch, channels, spatial[0], size * size)
    depth = F.interpolate(depth, size=(size, size * size), mode=mode, antialias=True)
    return depth.reshape(batch, channels, size, size, size)
