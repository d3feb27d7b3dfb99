"""Pictures of any bit depth as uint8, by one rule of what is white, and never by clipping."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from raypatch.data.npz import DataError
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
_WAY_OUT = "save the pictures with 8 bits, scaled as those that the model was trained on"


def read_pictures(files: Sequence[Path], channels: int) -> Iterator[NDArray[np.uint8]]:
    """Read pictures one after the other as (H, W) or (H, W, 3) uint8,
    turned as their EXIF orientation says.

    8 bits are taken as they are. Of more bits it is one rule for all `files` together, by their
    largest value: integers up to 255 are 8 bits in a wider type, from 32768 to 65535 are 16 bits;
    floats up to 1 are 0..1, up to 255 are 0..255; a TIFF that says 12 bits has them. Nothing says
    what white is in others. Raises DataError naming the file for those, for negative or undefined
    values, several pages, and transparency.
    """
    deep = _Depths()
    for file in files:
        with _opened(file) as picture:
            deep.look_at(file, picture)
    # All are looked at before one is read: white is one value for the whole folder.
    deep.check()
    for file in files:
        with _opened(file) as picture:
            yield _read(file, picture, channels, deep)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, turned upright and known to be the file's only one."""
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
        raise DataError(explain_impostor(path) or f"{path} is no picture that can be read: {error}") from error


class _Depths:
    """The largest values, over all files, of those with more than 8 bits,
    and what is white in them.
    """

    def __init__(self) -> None:
        self._highest: dict[str, tuple[float, Path]] = {}

    def look_at(self, path: Path, picture: Image.Image) -> None:
        """Take note of the values of one picture, if it has more than 8 bits."""
        if _has_truncated_colour(picture):
            # Pillow keeps the upper 8 of 16 bits here, so that a maximum below half of the range is
            # seen all the same.
            top = np.asarray(picture.convert("RGB")).max(initial=0)
            self._note("integer", 257.0 * float(top) if top else 256.0, path)
        elif _is_deep(picture) and _bits_of_tiff(picture) is None:
            values = np.asarray(picture)
            self._note(_kind(values), _checked_maximum(path, values), path)

    def _note(self, kind: str, high: float, path: Path) -> None:
        if kind not in self._highest or high > self._highest[kind][0]:
            self._highest[kind] = high, path

    def check(self) -> None:
        """Raise DataError when nothing says what is white."""
        for kind in self._highest:
            self.white(kind)

    def white(self, kind: str) -> float:
        """The value that becomes 255."""
        high, path = self._highest[kind]
        if kind == "float":
            # Rounding may leave a white pixel a little above 1.
            if high <= 1.001:
                return 1.0
            if high <= 255.0:
                return 255.0
            raise DataError(f"{path} holds floats up to {high:g}, neither 0 to 1 nor 0 to 255; {_WAY_OUT}")
        if high <= 255:
            return 255.0
        if 32768 <= high <= 65535:
            return 65535.0
        raise DataError(
            f"{path} holds values up to {high:g} in more than 8 bits, and nothing says which value is white; {_WAY_OUT}"
        )


def _read(path: Path, picture: Image.Image, channels: int, deep: _Depths) -> NDArray[np.uint8]:
    # Before it is turned: a TIFF turns itself while it is loaded.
    picture.load()
    if not _is_deep(picture):
        _require_opaque(path, picture)
        return np.array(ImageOps.exif_transpose(picture).convert("L" if channels == 1 else "RGB"))
    bits = _bits_of_tiff(picture)
    inverted = getattr(picture, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    values = np.asarray(ImageOps.exif_transpose(picture), dtype=np.float64)
    white = 2.0**bits - 1 if bits else deep.white(_kind(np.asarray(picture)))
    grey = np.rint(255 / white * values).clip(0, 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    return grey if channels == 1 else np.stack([grey] * 3, axis=-1)


def _is_deep(picture: Image.Image) -> bool:
    """Whether the picture is grey of more than 8 bits."""
    return picture.mode == "F" or picture.mode.startswith("I")


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


def _kind(values: NDArray[Any]) -> str:
    return "float" if values.dtype.kind == "f" else "integer"


def _checked_maximum(path: Path, values: NDArray[Any]) -> float:
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinity; give those values others first")
    low = float(values.min(initial=0))
    if low < 0:
        raise DataError(f"{path} holds values down to {low:g}; {_WAY_OUT}")
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
