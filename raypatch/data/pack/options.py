"""What a user may ask for when a source is packed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raypatch.data.inputs.rule import Intensity

SplitBy = Literal["auto", "given", "mended", "patient", "image"]


@dataclass(frozen=True)
class PackOptions:
    """All that decides the packed file, besides its source; None leaves it to what the images are.

    size: edge, pixels or voxels. shape: keep the aspect and pad, or squeeze. spacing: mm per voxel.
    columns: of a table, by role. split: auto takes what the source gives, else deals by patient,
    else by image; mended moves patients who are on two sides of a given split. shares: of train,
    val and test. folds: 0 for none. skip_broken: leave out what is missing or cannot be read.
    """

    size: int | None = None
    shape: Literal["pad", "squeeze"] = "pad"
    intensity: Intensity | None = None
    channels: Literal[1, 3] | None = None
    dimensions: Literal[2, 3] | None = None
    spacing: float | None = None
    frame: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    uncertain: str | None = None
    split: SplitBy = "auto"
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    folds: int = 0
    seed: int = 0
    ordinal: bool = False
    mirror_safe: bool = False
    skip_broken: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and not 4 <= self.size <= 1024:
            raise ValueError(f"--size {self.size} must be 4 to 1024 pixels")
        if self.spacing is not None and self.spacing <= 0:
            raise ValueError(f"--spacing {self.spacing} must be millimetres above 0")
        if self.frame is not None and self.frame < 0:
            raise ValueError(f"--frame {self.frame} counts from 0")
        if self.folds and self.folds < 3:
            raise ValueError(f"--folds {self.folds} must be at least 3: one is test, one val, the others train")
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"--shares {self.shares} must be three shares above 0 whose sum is 1, such as .7,.1,.2")
        if self.uncertain not in (None, "zero", "one", "drop"):
            raise ValueError(f"--uncertain {self.uncertain} must be zero, one or drop")

    def as_text(self) -> str:
        """All of it, for the name of a cached file."""
        values = asdict(self) | {"intensity": str(self.intensity), "columns": sorted(self.columns.items())}
        return repr(sorted(values.items()))


def parse_intensity(text: str | None) -> Intensity | None:
    """Read display, window:LOW,HIGH or percentile:LOW,HIGH. Raises ValueError."""
    if text is None:
        return None
    kind, _, ends = text.partition(":")
    if kind == "display" and not ends:
        return Intensity(kind="display")
    rule = f"--intensity {text!r} must be display, window:LOW,HIGH or percentile:LOW,HIGH"
    parts: list[Any] = ends.split(",")
    try:
        low, high = map(float, parts)
    except ValueError as error:
        raise ValueError(rule) from error
    if kind not in ("window", "percentile") or low >= high:
        raise ValueError(f"{rule}, LOW below HIGH")
    if kind == "percentile" and not 0 <= low < high <= 100:
        raise ValueError(f"{rule}, percentiles between 0 and 100")
    return Intensity(kind=kind, low=low, high=high)
