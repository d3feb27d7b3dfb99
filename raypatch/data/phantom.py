"""Made images that show a patch-size effect within minutes: not medical, and no benchmark of anything.

One blob on a noisy ground. Its coarse shape (round or oval) can be seen in large patches; its fine texture (none, or
faint stripes about three pixels apart) only where patches are small: together they are the class.
"""

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS, DatasetInfo, Split

_ELONGATION = 1.5
_STRIPE_PERIOD = (2.5, 3.5)  # pixels
_STRIPE_CONTRAST = 0.2
_NOISE = 0.06


def make_split(info: DatasetInfo, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Make one split of a phantom: images (N, H, W), (N, H, W, 3) or (N, D, H, W) and labels (N,), classes in turn.

    The same (name, split) gives the same bytes everywhere: PCG64, and only arithmetic that IEEE 754 rounds exactly.
    """
    seed = np.random.SeedSequence([*info.name.encode(), SPLITS.index(split)])
    generator = np.random.Generator(np.random.PCG64(seed))
    labels = np.arange(info.counts[SPLITS.index(split)]) % len(info.classes)
    images = np.stack([_draw_image(generator, info, oval=label >= 2, textured=label % 2 == 1) for label in labels])
    return images, labels.astype(np.int64)


def _draw_image(generator: np.random.Generator, info: DatasetInfo, *, oval: bool, textured: bool) -> NDArray[np.uint8]:
    dimensions, size = info.dimensions, info.size
    centre = generator.uniform(0.38, 0.62, dimensions) * size
    radius = generator.uniform(0.2, 0.26) * size
    axes = np.meshgrid(*[np.arange(size) + 0.5] * dimensions, indexing="ij", sparse=True)
    offsets = [axis - middle for axis, middle in zip(axes, centre, strict=True)]

    squared = sum(offset * offset for offset in offsets)
    along = _project(offsets, _direction(generator, dimensions))
    stretch = _ELONGATION if oval else 1.0
    long_axis, short_axis = radius * stretch ** (dimensions - 1), radius / stretch  # the same area or volume
    distance = np.sqrt(along * along / long_axis**2 + (squared - along * along) / short_axis**2)
    blob = np.clip((1 - distance) * radius / 2 + 0.5, 0, 1)

    waves = (
        _project(offsets, _direction(generator, dimensions)) / generator.uniform(*_STRIPE_PERIOD) + generator.random()
    )
    stripes = np.abs(4 * (waves - np.floor(waves)) - 2) - 1  # triangle wave, -1 to 1
    shade = generator.uniform(0.35, 0.55) + textured * _STRIPE_CONTRAST * stripes
    image = generator.uniform(0.15, 0.25) + blob * shade
    shape = image.shape
    if info.channels == 3:
        image = image[..., None] * generator.uniform(0.8, 1.1, 3)
        shape = (*shape, 3)
    noise = generator.random(shape) + generator.random(shape) - 1
    return np.clip(np.rint((image + _NOISE * 2.4495 * noise) * 255), 0, 255).astype(np.uint8)


def _direction(generator: np.random.Generator, dimensions: int) -> NDArray[np.float64]:
    """A random unit vector: the first draw inside the unit ball, scaled."""
    while True:
        vector = generator.uniform(-1, 1, dimensions)
        length = np.sqrt((vector * vector).sum())
        if 0.1 < length <= 1:
            return vector / length


def _project(offsets: list[NDArray[np.float64]], direction: NDArray[np.float64]) -> NDArray[np.float64]:
    return sum(offset * part for offset, part in zip(offsets, direction, strict=True))
