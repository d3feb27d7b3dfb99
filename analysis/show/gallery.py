"""Pictures for a report: images with what models make of them, as pixels with words beneath."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""(rows, columns, 3)."""

LEAST_EDGE = 160
"""Pixels that a picture has at least, so that an outline is thin."""
GAP = 6
"""Pixels between two planes."""
STRONGEST = 0.6
"""How much of a picture its map covers where that is highest."""


@dataclass(frozen=True)
class Picture:
    """caption: what is shown. detail: only shown on demand, in a page."""

    caption: str
    pixels: Pixels
    detail: bool = False

    @property
    def wide(self) -> bool:
        """Whether it is of several planes."""
        rows, columns, _ = self.pixels.shape
        return bool(columns > 2 * rows)

    def jpeg(self) -> bytes:
        """Return the picture as a JPEG file."""
        stream = io.BytesIO()
        Image.fromarray(self.pixels).save(stream, "JPEG", quality=85)
        return stream.getvalue()

    def address(self) -> str:
        """Return the picture as an address that holds it, so that it travels with a page."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg()).decode()


@dataclass(frozen=True)
class Strip:
    """Pictures of one image, side by side."""

    heading: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Strips under one title. name: stem of its files."""

    name: str
    title: str
    caption: str
    strips: tuple[Strip, ...]

    def files(self) -> dict[str, bytes]:
        """Return the pictures as files by name, in order."""
        found = {}
        for row, strip in enumerate(self.strips, 1):
            for place, picture in enumerate(strip.pictures, 1):
                found[f"{self.name}_{row:02}_{place:02}.jpg"] = picture.jpeg()
        return found


def as_planes(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the planes to show of an image (rows, columns), itself, or of a volume, the three through its middle."""
    if values.ndim == 2:
        return [values]
    return [values.take(edge // 2, axis) for axis, edge in enumerate(values.shape)]


def side_by_side(planes: Sequence[Pixels]) -> Pixels:
    """Return planes of one size as one picture, a gap between two."""
    gap = np.full((len(planes[0]), GAP, 3), 128, np.uint8)
    parts = [planes[0]]
    for plane in planes[1:]:
        parts += [gap, plane]
    return np.concatenate(parts, axis=1)


def as_colours(image: NDArray[np.uint8]) -> Pixels:
    """Return an image (C, rows, columns), grey or in colour, as pixels, enlarged by whole steps to LEAST_EDGE rows."""
    colours = np.repeat(image, 3, axis=0) if len(image) == 1 else image
    return _enlarged(np.moveaxis(colours, 0, -1))


def lay_map(pixels: Pixels, values: NDArray[np.floating]) -> Pixels:
    """Lay a map (rows, columns) from 0 to 1 in colours on a picture, the stronger the higher it is."""
    level = _enlarged(values)
    colours = mpl.colormaps["inferno"](level)[..., :3] * 255
    share = STRONGEST * np.sqrt(level)[..., None]
    mixed: Pixels = ((1 - share) * pixels + share * colours).round().astype(np.uint8)
    return mixed


def draw_outline(pixels: Pixels, inside: NDArray[np.bool_], colour: Sequence[int]) -> Pixels:
    """Draw the border of a set (rows, columns) into a picture, two pixels wide."""
    larger = _enlarged(inside)
    drawn = pixels.copy()
    drawn[larger & ~_shrunk(_shrunk(larger))] = colour
    return drawn


def _shrunk(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The set without its border; beyond the picture it goes on as at the edge."""
    padded = np.pad(inside, 1, mode="edge")
    shrunk: NDArray[np.bool_] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inside
    return shrunk


def _enlarged(values: NDArray[Any]) -> NDArray[Any]:
    """The values (rows, columns, ...) with each place repeated so that there are LEAST_EDGE rows or more."""
    times = math.ceil(LEAST_EDGE / len(values))
    return values.repeat(times, axis=0).repeat(times, axis=1)
