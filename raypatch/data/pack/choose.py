"""The rule of intensity and shape for a source, from what its images are, where nothing was asked for."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from raypatch.data.inputs.rule import InputRule, Intensity, Whites
from raypatch.data.inputs.scan import Look
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.options import PackOptions
from raypatch.data.pack.sources.listing import Item
from raypatch.words import agree, counted, first_of

SIZES = {2: 224, 3: 64}
"""Edge by dimensions where images do not agree on one of their own."""

LARGEST_OWN_SIZE = {2: 256, 3: 96}
HOUNSFIELD = (-1000.0, 1000.0)
"""Of a CT: from air to dense bone. One window for all, since its values are physical."""

PERCENTILES = (0.5, 99.5)
"""Of volumes and of MR, PET and the like, whose unit differs from scan to scan; single bright voxels are clipped."""

_RELATIVE = {"MR", "PT", "NM", "NIfTI"}


def choose_rule(items: Sequence[Item], looks: Sequence[Look], options: PackOptions) -> InputRule:
    """Return the rule for images that were looked at.

    Raises DataError for a mixture of pictures and volumes or of grey and colour that nothing
    decides, and for deep pictures of which nothing says what is white.
    """
    dimensions = options.dimensions or _agreed_dimensions(items, looks)
    channels = options.channels or _agreed_channels(items, looks)
    intensity = options.intensity or _usual_intensity(looks, dimensions)
    if intensity.kind == "display":
        whites = Whites()
        for item, look in zip(items, looks, strict=True):
            if look.deep is not None:
                whites.note(*look.deep, item.image.path)
        intensity = intensity.model_copy(update={"white": whites.found()})
    return InputRule(
        dimensions=dimensions,
        channels=channels,
        size=options.size or _usual_size(looks, dimensions),
        shape=options.shape,
        intensity=intensity,
        spacing=options.spacing,
        frame=options.frame,
    )


def _agreed_dimensions(items: Sequence[Item], looks: Sequence[Look]) -> Literal[2, 3]:
    by_dimensions: dict[int, list[str]] = {2: [], 3: []}
    for item, look in zip(items, looks, strict=True):
        # A volume of one slice is a picture.
        flat = len(look.edges) == 2 or 1 in look.edges
        by_dimensions[2 if flat else 3].append(item.image.name)
    if by_dimensions[2] and by_dimensions[3]:
        raise DataError(
            f"{counted(len(by_dimensions[2]), 'picture')} ({first_of(by_dimensions[2], most=2)}) and"
            f" {counted(len(by_dimensions[3]), 'volume')} ({first_of(by_dimensions[3], most=2)}) are no one data set:"
            " take --dimensions 2, which makes a picture of each DICOM file, or leave some out"
        )
    return 2 if by_dimensions[2] else 3


def _agreed_channels(items: Sequence[Item], looks: Sequence[Look]) -> Literal[1, 3]:
    counts = Counter(look.channels for look in looks)
    if len(counts) > 1:
        fewer = min(counts, key=lambda channels: counts[channels])
        names = [item.image.name for item, look in zip(items, looks, strict=True) if look.channels == fewer]
        kind = "grey" if fewer == 1 else "in colour"
        raise DataError(
            f"{counted(counts[1], 'image')} {agree(counts[1], 'is', 'are')} grey and {counts[3]} in colour;"
            f" {kind}: {first_of(names)}."
            " Say what all shall be: --channels 1 or --channels 3"
        )
    return 3 if 3 in counts else 1


def _usual_intensity(looks: Sequence[Look], dimensions: int) -> Intensity:
    modalities = {look.modality for look in looks if not look.eight_bits}
    if "CT" in modalities and len(modalities) == 1:
        return Intensity(kind="window", low=HOUNSFIELD[0], high=HOUNSFIELD[1])
    if modalities & (_RELATIVE | {"CT"}):
        return Intensity(kind="percentile", low=PERCENTILES[0], high=PERCENTILES[1])
    return Intensity(kind="display")


def _usual_size(looks: Sequence[Look], dimensions: int) -> int:
    """The edge that all images share, if it is one for a small image; else the usual one."""
    edges = {edge for look in looks for edge in look.edges if not (dimensions == 2 and edge == 1)}
    if len(edges) == 1 and max(edges) <= LARGEST_OWN_SIZE[dimensions]:
        return max(edges)
    return SIZES[dimensions]
