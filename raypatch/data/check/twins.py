"""Images of one split that are, up to a shift, brightness or compression, images of another:
the test is then no test.

Equal bytes are found by a digest. Near-duplicates are found in two steps: coarse thumbnails say
which few images could be it, then each pair is laid over one another and compared (see likeness.py).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raypatch.data.catalog import SPLITS, Split
from raypatch.data.check.likeness import compare
from raypatch.data.layout.archive import Archive
from raypatch.data.layout.images import check_images
from raypatch.data.layout.npz import read_fold_rows
from raypatch.words import agree

ALIKE, ALIKE_IN_DETAIL = 0.99, 0.93
"""What two images must reach to be twins: correlation as a whole, and of their fine detail."""

THUMB_EDGES = {2: 56, 3: 28}
"""Images are compared at this edge at most, by dimensions:
what a twin keeps of its detail is visible there.
"""

COARSE_EDGES = {2: 12, 3: 7}
CANDIDATES = 5
"""How many images of the other split are compared with each image:
the nearest by coarse thumbnails.
"""

MAY_BE_ALIKE = 0.8
NEARLY = 0.9
"""Volumes that are alike to this share at half their edge are compared at the whole:
that is eight times the work.
"""

_AT_ONCE = 16 << 20
"""Bytes of images that are turned to thumbnails at once."""

SMALLEST_EDGE = 12
"""Below this many pixels there is no detail to tell twins from look-alikes: only equal bytes count."""


@dataclass(frozen=True)
class Twin:
    """An image and the one that it repeats, each by split and index.

    likeness: of fine detail, 1 for equal bytes.
    """

    split: Split
    index: int
    of_split: Split
    of_index: int
    likeness: float
    equal: bool = False


def find_twins(path: Path, fold: int | None = None) -> list[Twin]:
    """Return for each image of val its twin in train,
    and for each of test that in train and that in val.

    Only the most alike of each, sorted by split and index. fold: which one is the test, of a file
    with folds; an index is then one into train, val and test one after the other. The file is read
    in chunks; a thumbnail per image is kept (at most 3 kB, a volume's 22 kB). Raises DataError for
    a file that is damaged or not in the layout.
    """
    with Archive(path) as archive:
        splits = {split: _read_thumbs(archive, split) for split in SPLITS}
    if fold is None:
        return _find_between(splits)
    places: dict[Split, list[int]] = {}
    for split in SPLITS:
        places[split] = []
        start = 0
        for stored, rows in read_fold_rows(path, split, fold).items():
            places[split] += (rows + start).tolist()
            start += len(splits[stored].digests)
    pool = _join([splits[split] for split in SPLITS])
    moved = []
    for twin in _find_between({split: pool.take(places[split]) for split in SPLITS}):
        index, of_index = places[twin.split][twin.index], places[twin.of_split][twin.of_index]
        moved.append(replace(twin, index=index, of_index=of_index))
    return moved


def find_repeats(images: Tensor, earlier: Mapping[Split, Tensor]) -> list[Twin]:
    """Return for each new image its twin in each of some splits, the images as if they were the test.

    images, earlier: uint8 (N, C, *spatial), all of one shape.
    """
    ours = _thumbs_of_tensor(images)
    found = []
    for split, known in earlier.items():
        found += _match(split, _thumbs_of_tensor(known), "test", ours)
    return sorted(found, key=_position)


def _find_between(splits: Mapping[Split, "_Thumbs"]) -> list[Twin]:
    found = []
    pairs: Sequence[tuple[Split, Split]] = (("train", "val"), ("train", "test"), ("val", "test"))
    for earlier, later in pairs:
        found += _match(earlier, splits[earlier], later, splits[later])
    return sorted(found, key=_position)


def _position(twin: Twin) -> tuple[int, int, int]:
    return SPLITS.index(twin.split), twin.index, SPLITS.index(twin.of_split)


def describe_twins(
    twins: Sequence[Twin],
    counts: Mapping[Split, int],
    *,
    show: int | None = 20,
    rest: str = "--all lists them",
    ids: Mapping[Split, NDArray[np.str_]] | None = None,
) -> list[str]:
    """Return lines that say how many images of val and test repeat
    one of an earlier split, and which.

    counts: images per split. show: how many pairs are listed at most, None for all; rest: where the
    others are. ids: what the images of a split are called, where the file says.
    """
    if not twins:
        return ["no image of val or test repeats one of an earlier split, as far as can be told"]
    lines = []
    later: Sequence[tuple[Split, str]] = (("test", "train or val"), ("val", "train"))
    for split, where in later:
        # By index: an image of test may have a twin in train and another in val, and counts once.
        repeated = {twin.index for twin in twins if twin.split == split}
        equal = {twin.index for twin in twins if twin.split == split and twin.equal}
        if repeated:
            are = agree(len(repeated), "is a near-duplicate of an image", "are near-duplicates of images")
            lines.append(
                f"{len(repeated)} of {counts[split]} {split} images {are} in {where}"
                f" ({len(equal)} of them equal in every pixel)"
            )
    lines.append("image, the one that it repeats, likeness of their fine detail:")
    order = sorted(twins, key=lambda twin: (twin.split != "test", -twin.likeness, twin.index))
    for twin in order[:show]:
        likeness = "equal" if twin.equal else f"{twin.likeness:.3f}"
        called = f"  {ids[twin.split][twin.index]} and {ids[twin.of_split][twin.of_index]}" if ids else ""
        lines.append(f"  {twin.split} {twin.index}  {twin.of_split} {twin.of_index}  {likeness}{called}")
    if show is not None and len(order) > show:
        lines.append(f"  and {len(order) - show} more; {rest}")
    return lines


@dataclass(frozen=True)
class _Thumbs:
    """images: (N, *edges) uint8, grey. coarse: (N, F), mean 0 and length 1.
    digests: of each image's bytes.
    """

    images: Tensor
    coarse: Tensor
    digests: list[bytes]

    @property
    def dimensions(self) -> int:
        return self.images.ndim - 1

    def take(self, rows: Sequence[int]) -> "_Thumbs":
        return _Thumbs(self.images[rows], self.coarse[rows], [self.digests[row] for row in rows])


def _join(parts: Sequence[_Thumbs]) -> _Thumbs:
    digests: list[bytes] = []
    for part in parts:
        digests += part.digests
    return _Thumbs(torch.cat([part.images for part in parts]), torch.cat([part.coarse for part in parts]), digests)


def _read_thumbs(archive: Archive, split: Split) -> _Thumbs:
    key = f"{split}_images"
    shape = check_images(archive, key)
    in_colour = len(shape) == 4 and shape[-1] == 3
    dimensions = 2 if in_colour or len(shape) == 3 else 3
    rows = max(1, _AT_ONCE // math.prod(shape[1:]))
    return _make_thumbs(archive.chunks(key, rows), dimensions)


def _thumbs_of_tensor(images: Tensor) -> _Thumbs:
    """images: uint8 (N, C, *spatial)."""
    dimensions = images.ndim - 2
    channels_last = images.movedim(1, -1) if images.shape[1] == 3 else images[:, 0]
    rows = max(1, _AT_ONCE // images[0].numel())
    return _make_thumbs((part.numpy() for part in channels_last.split(rows)), dimensions)


def _make_thumbs(chunks: Iterable[NDArray[np.uint8]], dimensions: int) -> _Thumbs:
    """chunks: uint8 (n, *edges) or (n, *edges, 3), which a digest is made of as they are."""
    thumbs, digests = [], []
    for chunk in chunks:
        for image in chunk:
            digests.append(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        images = torch.from_numpy(chunk.astype(np.float32))
        if images.ndim > dimensions + 1:
            images = images.mean(dim=-1)
        factor = math.ceil(images.shape[1] / THUMB_EDGES[dimensions])
        pool = F.avg_pool2d if dimensions == 2 else F.avg_pool3d
        thumbs.append(pool(images[:, None], factor)[:, 0].round().to(torch.uint8))
    images = torch.cat(thumbs)
    return _Thumbs(images, _coarse(images, dimensions), digests)


def _coarse(images: Tensor, dimensions: int) -> Tensor:
    """(N, F) descriptors for a first look: small enough that those of all images lie in memory."""
    edge = min(COARSE_EDGES[dimensions], images.shape[1])
    pool = F.adaptive_avg_pool2d if dimensions == 2 else F.adaptive_avg_pool3d
    # In parts: as floats, all images at once would take four times their memory.
    parts = [pool(part[:, None].float(), edge).flatten(1) for part in images.split(4096)]
    coarse = torch.cat(parts)
    return F.normalize(coarse - coarse.mean(dim=1, keepdim=True), dim=1, eps=1e-3)


def _match(earlier: Split, first: _Thumbs, later: Split, second: _Thumbs) -> list[Twin]:
    """The most alike image of `first` for each of `second` that has a twin there."""
    found: dict[int, Twin] = {}
    if first.images.shape[1] >= SMALLEST_EDGE:
        for start in range(0, len(second.images), 512):
            for twin in _match_block(earlier, first, later, second, start):
                found[twin.index] = twin
    first_with: dict[bytes, int] = {}
    for index, digest in enumerate(first.digests):
        first_with.setdefault(digest, index)
    # After the near-duplicates: an image of the same bytes is the better twin.
    for index, digest in enumerate(second.digests):
        if digest in first_with:
            found[index] = Twin(later, index, earlier, first_with[digest], 1.0, equal=True)
    return list(found.values())


def _match_block(earlier: Split, first: _Thumbs, later: Split, second: _Thumbs, start: int) -> list[Twin]:
    alike = second.coarse[start : start + 512] @ first.coarse.T
    values, candidates = alike.topk(min(CANDIDATES, alike.shape[1]), dim=1)
    rows, columns = (values >= MAY_BE_ALIKE).nonzero(as_tuple=True)
    if len(rows) == 0:
        return []
    ours, theirs = rows + start, candidates[rows, columns]
    best: dict[int, Twin] = {}
    batch = max(1, (4 << 20) // first.images[0].numel())
    for our, their in zip(ours.split(batch), theirs.split(batch), strict=True):
        if first.dimensions == 3:
            our, their = _nearly_alike(first, their, second, our)
            if len(our) == 0:
                continue
        whole, detail = compare(first.images[their].float(), second.images[our].float())
        twins = (whole >= ALIKE) & (detail >= ALIKE_IN_DETAIL)
        for row in twins.nonzero()[:, 0].tolist():
            index, likeness = int(our[row]), float(detail[row])
            if index not in best or likeness > best[index].likeness:
                best[index] = Twin(later, index, earlier, int(their[row]), round(likeness, 4))
    return list(best.values())


def _nearly_alike(first: _Thumbs, theirs: Tensor, second: _Thumbs, ours: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of volumes that are worth to be compared in full."""
    if first.images.shape[1] < 2 * SMALLEST_EDGE:
        return ours, theirs
    whole, detail = compare(_halve(first.images[theirs]), _halve(second.images[ours]))
    near = (whole >= NEARLY * ALIKE) & (detail >= NEARLY * ALIKE_IN_DETAIL)
    return ours[near], theirs[near]


def _halve(volumes: Tensor) -> Tensor:
    return F.avg_pool3d(volumes[:, None].float(), 2)[:, 0]
