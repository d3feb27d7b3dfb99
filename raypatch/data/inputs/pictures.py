"""Pictures of any bit depth, turned upright, with what their files say of black and white."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from raypatch.data.inputs.scan import Look, Scan, kind_of_values
from raypatch.data.layout.archive import DataError
from raypatch.storage.impostors import explain_impostor

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_TURNED_BY_90 = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""

_ORIENTATION = 0x0112
_GREY_MODES = ("1", "L", "LA", "La")


def look_at_picture(path: Path) -> Look:
    """See what a picture is; its pixels are read only where its depth does not follow from its type."""
    with _opened(path) as picture:
        edges = (picture.height, picture.width)
        if picture.getexif().get(_ORIENTATION) in _TURNED_BY_90:
            edges = (picture.width, picture.height)
        deep = _depth(path, picture)
        is_deep = _is_deep(picture)
        channels = 1 if is_deep or _is_grey(picture) else 3
        return Look(edges, channels, deep=deep, eight_bits=not is_deep)


def read_picture(path: Path) -> Scan:
    """Read a picture, turned as its EXIF orientation says.

    8 bits are (H, W) or (H, W, 3) uint8; grey of more bits is (H, W) as it is stored. Raises
    DataError naming the file for several pages, transparency, negative and undefined values.
    """
    with _opened(path) as picture:
        try:
            # Before it is turned: a TIFF turns itself while it is loaded.
            picture.load()
        except _BROKEN as error:
            raise _unreadable(path, error) from error
        if not _is_deep(picture):
            _require_opaque(path, picture)
            mode = "L" if _is_grey(picture) else "RGB"
            values = np.array(ImageOps.exif_transpose(picture).convert(mode))
            return Scan(values, window=(0.0, 255.0), in_colour=mode == "RGB")
        bits = _bits_of_tiff(picture)
        inverted = getattr(picture, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
        values = np.array(ImageOps.exif_transpose(picture))
        _checked_maximum(path, values)
        return Scan(values, window=(0.0, 2.0**bits - 1) if bits else None, inverted=inverted)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, known to be the file's only one."""
    try:
        # As a stream: a path is mapped to memory, where Pillow 13 garbles an uncompressed TIFF that is to be turned.
        with path.open("rb") as stream, Image.open(stream) as picture:
            pages = getattr(picture, "n_frames", 1)
            # The second picture of a camera's MPO is its preview.
            if pages > 1 and picture.format != "MPO":
                raise DataError(f"{path} holds {pages} pages and nothing says which is meant; save that one by itself")
            yield picture
    except DataError:
        raise
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(explain_impostor(path) or f"{path} is no picture that can be read: {error}")


def _depth(path: Path, picture: Image.Image) -> tuple[str, float] | None:
    """Kind and highest value of a picture whose file does not say what is white."""
    if _has_truncated_colour(picture):
        # Pillow keeps the upper 8 of 16 bits here, so that a maximum below half of the range is
        # seen all the same.
        top = np.asarray(picture.convert("RGB")).max(initial=0)
        return "integer", 257.0 * float(top) if top else 256.0
    if _is_deep(picture) and _bits_of_tiff(picture) is None:
        values = np.asarray(picture)
        return kind_of_values(values), _checked_maximum(path, values)
    return None


def _is_deep(picture: Image.Image) -> bool:
    """Whether the picture is grey of more than 8 bits."""
    return picture.mode == "F" or picture.mode.startswith("I")


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode != "P":
        return picture.mode in _GREY_MODES
    palette = np.array(picture.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _has_truncated_colour(picture: Image.Image) -> bool:
    """Whether the file has 16 bits of which Pillow keeps 8:
    those in colour, or grey with transparency.
    """
    # A tile names the raw mode that it is decoded from, such as RGB;16B.
    tiles = getattr(picture, "tile", ())
    return not _is_deep(picture) and any(";16" in str(tile) for tile in tiles)


def _bits_of_tiff(picture: Image.Image) -> int | None:
    """The bits of a grey TIFF that says a number between 8 and 16, such as 12:
    then its white is known.
    """
    said = getattr(picture, "tag_v2", {}).get(_TIFF_BITS, ())
    bits = said[0] if isinstance(said, tuple) and said else said
    return bits if isinstance(bits, int) and 8 < bits < 16 else None


def _checked_maximum(path: Path, values: NDArray[Any]) -> float:
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinity; give those values others first")
    return float(values.max(initial=0))


def _require_opaque(path: Path, picture: Image.Image) -> None:
    if not picture.has_transparency_data:
        return
    lowest = np.asarray(picture.convert("RGBA"))[..., 3].min(initial=255)
    if lowest < 255:
        raise DataError(
            f"{path} has transparent pixels, and nothing says what is behind them;"
            " save it on the background of the pictures that the model was trained on, without an alpha channel"
        )
