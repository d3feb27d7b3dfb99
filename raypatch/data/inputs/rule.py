"""The one rule by which a file's values and shape become what a model sees:
stored with the packed data, with each result and each export, and applied by `predict`.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from raypatch.data.inputs.scan import Scan, kind_of_values
from raypatch.data.inputs.shape import fit, fit_mask
from raypatch.data.layout.archive import DataError

_WAY_OUT = (
    "save the pictures with 8 bits, scaled as those that the model was trained on, or pack with"
    " --intensity window:LOW,HIGH or percentile:0.5,99.5"
)


class Intensity(BaseModel):
    """Which value becomes black and which white; between them it is linear, beyond them clipped.

    display: as a screen shows it, by the depth of the file's type or the window that DICOM says.
    window: `low` and `high`, in the file's own unit (after DICOM's rescale slope; HU of a CT).
    percentile: those of each image by itself, `low` and `high` in percent.
    white: by kind (integer, float) the white of deep pictures whose files do not say it, as it was
    found when the data was packed; black is 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["display", "window", "percentile"]
    low: float = 0.0
    high: float = 100.0
    white: dict[str, float] = {}

    def __str__(self) -> str:
        return self.kind if self.kind == "display" else f"{self.kind}:{self.low:g},{self.high:g}"


class InputRule(BaseModel):
    """How an image is brought to (size,) * dimensions, uint8.

    shape: pad keeps the aspect, by spacing where the file says it, and fills with black; squeeze
    stretches. spacing: mm per voxel that all images are brought to; None fills the size with each.
    frame: of files that hold several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    dimensions: Literal[2, 3]
    channels: Literal[1, 3]
    size: int
    shape: Literal["pad", "squeeze"] = "pad"
    intensity: Intensity
    spacing: float | None = None
    frame: int | None = None

    @classmethod
    def from_json(cls, text: str) -> "InputRule":
        """Read what `model_dump_json` wrote. Raises DataError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DataError(f"the stored rule of intensity and shape cannot be read: {error}") from error

    def apply(self, scan: Scan, whites: "Whites") -> NDArray[np.uint8]:
        """Return a scan as (size, size), (size, size, 3) or (size, size, size) uint8."""
        levels = to_levels(scan, self.intensity, self.channels, whites)
        spacing = None if self.shape == "squeeze" else scan.spacing
        fitted = fit(torch.from_numpy(levels), self.dimensions, self.size, spacing, self.shape, self.spacing)
        rounded: NDArray[np.uint8] = fitted.round_().clamp_(0, 255).byte().numpy()
        return rounded

    def apply_to_mask(self, mask: NDArray[np.uint8], spacing: tuple[float, ...] | None) -> NDArray[np.uint8]:
        """Return a mask in the same geometry, each pixel the nearest class."""
        fitted: NDArray[np.uint8] = fit_mask(
            torch.from_numpy(mask), self.size, None if self.shape == "squeeze" else spacing, self.shape, self.spacing
        ).numpy()
        return fitted


class Whites:
    """What is white in deep pictures whose files do not say it: one value for all, by their largest.

    Integers up to 255 are 8 bits in a wider type, from 32768 to 65535 are 16 bits; floats up to 1
    are 0..1, up to 255 are 0..255. known: by kind, where it was found before.
    """

    def __init__(self, known: dict[str, float] | None = None) -> None:
        self._known = dict(known or {})
        self._highest: dict[str, tuple[float, Path | None]] = {}

    def note(self, kind: str, high: float, path: Path | None) -> None:
        """Take note of the highest value of one picture."""
        if kind not in self._highest or high > self._highest[kind][0]:
            self._highest[kind] = high, path

    def found(self) -> dict[str, float]:
        """What is white, by kind. Raises DataError where nothing says it."""
        return {kind: self.white(kind) for kind in sorted({*self._known, *self._highest})}

    def white(self, kind: str) -> float:
        """The value that becomes 255."""
        if kind in self._known:
            return self._known[kind]
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


def to_levels(scan: Scan, intensity: Intensity, channels: int, whites: Whites) -> NDArray[np.float32]:
    """Return a scan's values as 0 (black) to 255 (white), unrounded, of 1 or 3 channels."""
    values = scan.values
    if scan.in_colour and channels == 1:
        values = np.asarray(Image.fromarray(values).convert("L"))
    low, high = _ends(scan, intensity, whites)
    levels = values.astype(np.float64) - low
    # An image of one value has no range: all of it becomes black.
    levels *= 255 / (high - low) if high > low else 0.0
    grey: NDArray[np.float32] = levels.clip(0, 255).astype(np.float32)
    if scan.inverted:
        grey = 255 - grey
    if channels == 3 and not scan.in_colour:
        grey = np.stack([grey] * 3, axis=-1)
    return grey


def _ends(scan: Scan, intensity: Intensity, whites: Whites) -> tuple[float, float]:
    """The values that become black and white."""
    if intensity.kind == "window":
        return intensity.low, intensity.high
    if intensity.kind == "percentile":
        low, high = np.percentile(scan.values, [intensity.low, intensity.high])
        return float(low), float(high)
    if scan.window is not None:
        return scan.window
    lowest = float(scan.values.min(initial=0))
    if lowest < 0:
        raise DataError(f"holds values down to {lowest:g}; {_WAY_OUT}")
    kind = kind_of_values(scan.values)
    return 0.0, whites.white(kind)
