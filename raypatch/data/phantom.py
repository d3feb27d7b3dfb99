"""Made images that show a patch-size effect within minutes:
not medical, and no benchmark of anything.

One blob on a noisy ground. Its size can be seen in large patches; its
grain (none, or specks of a few pixels) asks for small ones, for it
has no fixed place or sign. Size and grain together are the class.
"""

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS, DatasetInfo, Split

KINDS = 4
"""Small or large, smooth or grainy."""

MASK_CLASSES = ("background", "blob")

# Of the image's edge: small, large.
_RADIUS = (0.19, 0.32)
# Brightness around the blob, 0 to 1.
_GROUND = (0.35, 0.45)
# How much brighter the blob is.
_SHADE = (0.3, 0.4)
# Edge in pixels and contrast, by dimensions.
_SPECK = {2: (2, 0.3), 3: (4, 0.45)}
# Standard deviation.
_NOISE = 0.05


def make_split(info: DatasetInfo, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Make one split of a phantom: images (N, H, W), (N, H, W, 3) or (N, D, H, W)
    and labels (N,), classes in turn.

    The same name and split give the same bytes everywhere: PCG64, and
    only arithmetic that IEEE 754 rounds exactly.
    """
    images, _, labels = _make_split(info, split)
    return images, labels


def make_masks(info: DatasetInfo, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make the same images and, as masks (N, H, W), where their blobs are."""
    images, masks, _ = _make_split(info, split)
    return images, masks


def _make_split(info: DatasetInfo, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    number = SPLITS.index(split)
    generator = np.random.Generator(np.random.PCG64([*info.name.encode(), number]))
    labels = np.arange(info.counts[number]) % KINDS
    images, masks = [], []
    for label in labels:
        large, grainy = bool(label >= 2), bool(label % 2)
        image, mask = _draw_image(generator, info, large=large, grainy=grainy)
        images.append(image)
        masks.append(mask)
    return np.stack(images), np.stack(masks), labels.astype(np.int64)


def _draw_image(
    generator: np.random.Generator,
    info: DatasetInfo,
    *,
    large: bool,
    grainy: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    size, dimensions = info.size, info.dimensions
    radius = _RADIUS[large] * size * generator.uniform(0.9, 1.1)
    middle = generator.uniform(0.38, 0.62, dimensions) * size
    axes = np.meshgrid(*[np.arange(size) + 0.5] * dimensions, indexing="ij", sparse=True)
    squared = np.zeros(1)
    for axis, centre in zip(axes, middle, strict=True):
        squared = squared + (axis - centre) ** 2
    blob = np.clip((radius - np.sqrt(squared)) / 2 + 0.5, 0, 1)

    shade = generator.uniform(*_SHADE) + grainy * _draw_specks(generator, size, dimensions)
    image = generator.uniform(*_GROUND) + blob * shade
    if info.channels == 3:
        image = image[..., None] * generator.uniform(0.8, 1.1, 3)
    # Triangular, variance 1/6. numpy's normal numbers use functions that are not rounded alike.
    noise = generator.random(image.shape) + generator.random(image.shape) - 1
    levels = (255 * (image + _NOISE * 6**0.5 * noise)).round().clip(0, 255).astype(np.uint8)
    return levels, (blob >= 0.5).astype(np.uint8)


def _draw_specks(generator: np.random.Generator, size: int, dimensions: int) -> NDArray[np.float64]:
    """Specks of random sign on a lattice of random place."""
    edge, contrast = _SPECK[dimensions]
    # Two more than fit, so that the lattice can begin anywhere within a speck.
    signs = 2.0 * generator.integers(0, 2, (size // edge + 2,) * dimensions) - 1
    specks = np.kron(signs, np.full((edge,) * dimensions, contrast))
    start = generator.integers(0, edge, dimensions)
    return specks[tuple(slice(s, s + size) for s in start)]
