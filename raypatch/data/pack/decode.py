"""All images of a source looked at, then read once each into a file beside the result: bounded memory, all cores."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypatch.data.inputs.masks import read_mask
from raypatch.data.inputs.reading import look_at, named, read_scan
from raypatch.data.inputs.rule import InputRule, Whites
from raypatch.data.inputs.scan import Look
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.sources.listing import Item
from raypatch.machine.cores import available_cores

CHUNK = 64
"""Images per task of a worker."""

WORTH_WORKERS = 1000
"""Images below which starting processes costs more than it saves; fewer where they are volumes."""

OnProgress = Callable[[str, int, int], object]
"""What is being done, and how many of how many are."""


@dataclass(frozen=True)
class Spool:
    """Images, and masks where there are any, in the order of the source, as raw bytes on disk.

    shape: of all images, (N, size, size), (N, size, size, 3) or (N, size, size, size).
    mask_shape: (N, *spatial), or None.
    """

    folder: Path
    shape: tuple[int, ...]
    mask_shape: tuple[int, ...] | None

    def create(self) -> None:
        """Make the files, empty, of their whole size. Raises OSError."""
        for name, shape in (("images", self.shape), ("masks", self.mask_shape)):
            if shape is not None:
                with (self.folder / name).open("wb") as stream:
                    stream.truncate(int(np.prod(shape, dtype=np.int64)))

    def images(self, mode: Any = "r") -> NDArray[np.uint8]:
        """The images, mapped from disk."""
        return np.memmap(self.folder / "images", np.uint8, mode, shape=self.shape)

    def masks(self, mode: Any = "r") -> NDArray[np.uint8] | None:
        """The masks, mapped from disk."""
        if self.mask_shape is None:
            return None
        return np.memmap(self.folder / "masks", np.uint8, mode, shape=self.mask_shape)


def look_at_all(items: Sequence[Item], on_progress: OnProgress) -> tuple[list[Look | None], dict[int, str]]:
    """Return what each image is, None for one that is broken, and by position what is wrong with those."""
    looks: list[Look | None] = []
    broken: dict[int, str] = {}
    for found in _spread(_look_chunk, list(_chunks(items)), len(items)):
        for look, problem in found:
            if problem is not None:
                broken[len(looks)] = problem
            looks.append(look)
        on_progress("looked at", len(looks), len(items))
    return looks, broken


def decode_all(
    items: Sequence[Item], rule: InputRule, spool: Spool, on_progress: OnProgress
) -> tuple[dict[int, str], set[int]]:
    """Read all images, and masks, into the spool; return what is wrong by position, and all values of masks."""
    broken: dict[int, str] = {}
    classes: set[int] = set()
    tasks = []
    start = 0
    for chunk in _chunks(items):
        tasks.append((start, chunk, rule, spool))
        start += len(chunk)
    done = 0
    for problems, values in _spread(_decode_chunk, tasks, len(items)):
        broken |= problems
        classes |= values
        done = min(done + CHUNK, len(items))
        on_progress("read", done, len(items))
    return broken, classes


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _spread(work: Callable[[Any], Any], tasks: Sequence[Any], images: int) -> Iterator[Any]:
    """Do the work on all tasks, in order, by processes where that pays."""
    workers = available_cores()
    if workers < 2 or images < WORTH_WORKERS:
        yield from map(work, tasks)
        return
    from joblib import Parallel, delayed

    # A generator: results are taken as they come, and few tasks wait in memory.
    parallel = Parallel(
        n_jobs=workers,
        backend="loky",
        return_as="generator",
        pre_dispatch=4 * workers,
        initializer=_end_with,
        initargs=(os.getpid(),),
    )
    yield from parallel(delayed(work)(task) for task in tasks)


def _end_with(parent: int) -> None:
    """In a worker: end soon after its parent, which may be killed; it would wait for work for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _look_chunk(items: Sequence[Item]) -> list[tuple[Look | None, str | None]]:
    found: list[tuple[Look | None, str | None]] = []
    for item in items:
        try:
            found.append((look_at(item.image), None))
        except DataError as error:
            found.append((None, str(error)))
    return found


def _decode_chunk(task: tuple[int, Sequence[Item], InputRule, Spool]) -> tuple[dict[int, str], set[int]]:
    start, items, rule, spool = task
    whites = Whites(rule.intensity.white)
    images, masks = spool.images("r+"), spool.masks("r+")
    broken: dict[int, str] = {}
    classes: set[int] = set()
    for row, item in enumerate(items, start=start):
        try:
            scan = read_scan(item.image, dimensions=rule.dimensions, frame=rule.frame)
            images[row] = named(item.image, partial(rule.apply, scan, whites))
            if masks is not None and item.mask is not None:
                edges = scan.values.shape[: rule.dimensions]
                mask = read_mask(item.mask, edges, dimensions=rule.dimensions, frame=rule.frame)
                masks[row] = rule.apply_to_mask(mask, scan.spacing)
                classes |= set(np.unique(mask).tolist())
        except DataError as error:
            broken[row] = str(error)
    return broken, classes
