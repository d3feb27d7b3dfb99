"""A contact sheet: some images of each class and split, with their masks drawn around, to be looked at."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from raypatch.data.catalog import SPLITS, Split
from raypatch.data.check.findings import Findings
from raypatch.data.layout.archive import Archive
from raypatch.data.layout.images import check_images
from raypatch.data.layout.labels import read_labels

PER_ROW = 8
"""Images of one class in one split that are shown."""

TILE = 112
"""Edge of a shown image, pixels."""

_MASK_COLOURS = ((255, 64, 64), (64, 200, 255), (255, 220, 0), (120, 255, 120))
_GAP, _LINE = 6, 18


def draw_sheet(findings: Findings, seed: int = 0) -> Image.Image:
    """Return a picture with a row per split and class: images drawn at random, of volumes the middle slice.

    Masks are outlined, a colour per class.
    """
    rows: list[tuple[str, list[NDArray[np.uint8]]]] = []
    with Archive(findings.path) as archive:
        for split in SPLITS:
            rows += _rows_of(archive, split, findings, seed)
    width = PER_ROW * (TILE + _GAP) + _GAP
    height = len(rows) * (TILE + _LINE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    top = _GAP
    for title, tiles in rows:
        draw.text((_GAP, top), title, fill=(20, 20, 20), font=font)
        for column, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (_GAP + column * (TILE + _GAP), top + _LINE))
        top += TILE + _LINE + _GAP
    return sheet


def _rows_of(
    archive: Archive, split: Split, findings: Findings, seed: int
) -> list[tuple[str, list[NDArray[np.uint8]]]]:
    count = findings.counts[split]
    by_class: list[tuple[str, NDArray[np.int64]]] = [("", np.arange(count))]
    if findings.classes:
        labels = read_labels(archive, split, count)
        by_class = []
        for number, name in enumerate(findings.classes):
            has = labels[:, number] == 1 if labels.ndim == 2 else labels == number
            by_class.append((name, np.flatnonzero(has)))
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen: list[tuple[str, NDArray[np.int64]]] = []
    for name, members in by_class:
        some = np.sort(generator.permutation(members)[:PER_ROW])
        chosen.append((f"{split}  {name}  ({len(members)})", some))
    wanted = np.unique(np.concatenate([some for _, some in chosen]))
    images = _take(archive, f"{split}_images", wanted)
    masks = _take(archive, f"{split}_masks", wanted) if findings.has_masks else None
    rows = []
    for title, some in chosen:
        tiles = []
        for index in some.tolist():
            place = int(np.searchsorted(wanted, index))
            tiles.append(_tile(images[place], None if masks is None else masks[place]))
        rows.append((title, tiles))
    return rows


def _take(archive: Archive, key: str, wanted: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """The images at some places, read in parts."""
    shape = check_images(archive, key) if key.endswith("_images") else archive.header(key)[0]
    rows = max(1, (32 << 20) // int(np.prod(shape[1:])))
    taken: list[NDArray[np.uint8]] = []
    start = 0
    for part in archive.chunks(key, rows):
        inside = wanted[(wanted >= start) & (wanted < start + len(part))]
        taken += list(part[inside - start])
        start += len(part)
    return taken


def _tile(image: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """One image at TILE pixels, in colour, its mask outlined."""
    if image.ndim == 3 and image.shape[-1] != 3:
        middle = _middle(image, mask)
        # Of a volume the rows run from back to front: the front is shown on top.
        image = image[middle, ::-1, ::-1]
        mask = None if mask is None else mask[middle, ::-1, ::-1]
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    tile = np.array(picture.resize((TILE, TILE), Image.Resampling.BILINEAR))
    if mask is not None:
        classes = np.array(Image.fromarray(np.ascontiguousarray(mask)).resize((TILE, TILE), Image.Resampling.NEAREST))
        _outline(tile, classes)
    return tile


def _middle(volume: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> int:
    """The slice that is shown: where the mask is largest, else the middle one."""
    if mask is not None and mask.any():
        return int((mask > 0).sum(axis=(1, 2)).argmax())
    # Of an even number the earlier one, where a single slice is padded to.
    return (len(volume) - 1) // 2


def _outline(tile: NDArray[np.uint8], classes: NDArray[np.uint8]) -> None:
    """Colour the pixels of each class that touch another."""
    inner = np.ones(classes.shape, dtype=bool)
    for axis in (0, 1):
        for step in (1, -1):
            inner &= classes == np.roll(classes, step, axis=axis)
    for value in np.unique(classes[classes > 0]).tolist():
        tile[(classes == value) & ~inner] = _MASK_COLOURS[(value - 1) % len(_MASK_COLOURS)]


def draw_pairs(path: Path, findings: Findings, most: int = 12) -> Image.Image | None:
    """Return a picture of near-duplicates, each image above the one that it repeats; None where there are none."""
    pairs = sorted(findings.twins, key=lambda twin: -twin.likeness)[:most]
    if not pairs:
        return None
    sheet = Image.new("RGB", (len(pairs) * (TILE + _GAP) + _GAP, 2 * (TILE + _LINE) + _GAP), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    with Archive(path) as archive:
        for column, twin in enumerate(pairs):
            left = _GAP + column * (TILE + _GAP)
            for row, (split, index) in enumerate(((twin.split, twin.index), (twin.of_split, twin.of_index))):
                (image,) = _take(archive, f"{split}_images", np.array([index]))
                top = row * (TILE + _LINE)
                draw.text((left, top), f"{split} {index}", fill=(20, 20, 20), font=font)
                sheet.paste(Image.fromarray(_tile(image, None)), (left, top + _LINE))
    return sheet
