"""The files of stored features: an array per split, the backbone that made them, and what they are of."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raypatch.data.catalog import Split
from raypatch.storage.files import hold_lock, remove_leftovers, write_atomically
from raypatch.training.checkpoints.checkpoint import Progress, Tensors, load_tensors, save_tensors


@dataclass(frozen=True)
class FeatureStore:
    """The features of one backbone on one dataset.

    folder: `features/KEY` of a run. backbone: the file of the backbone's weights, which features of
    other datasets may share.
    """

    folder: Path
    backbone: Path

    @property
    def about(self) -> Path:
        """What the features are of, for people."""
        return self.folder / "about.json"

    def array(self, split: Split) -> Path:
        """The features of a whole split, float32 (N, width) or (N, tokens, width)."""
        return self.folder / f"{split}.npy"

    def read(self, split: Split) -> Tensor | None:
        """Map the features of a split into memory; None where they are missing or cut off."""
        try:
            # Copy on write: torch wants an array that may be written to.
            mapped = np.load(self.array(split), mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return torch.from_numpy(mapped)

    def require(self, split: Split) -> Tensor:
        """Return what `read` does. Raises ValueError where there is nothing."""
        found = self.read(split)
        if found is None:
            raise ValueError(
                f"{self.array(split)} is missing or damaged: the features that a finished trial looks images up in;"
                " put it back, or remove the trial's folder and run it again"
            )
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store, so that of several workers and nodes one computes and the others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.folder / ".lock", wait=True):
            remove_leftovers(self.folder)
            yield

    def write(self, split: Split, parts: Iterable[Tensor], count: int) -> None:
        """Write the features of a split, part by part as they are made; the file appears whole or not at all.

        parts: float32 (n, ...) on the CPU, `count` rows together. The caller holds the store.
        """
        path = self.array(split)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            mapped, done = None, 0
            for part in parts:
                if mapped is None:
                    shape = (count, *part.shape[1:])
                    mapped = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float32, shape=shape)
                mapped[done : done + len(part)] = part.numpy()
                done += len(part)
            assert mapped is not None, "a split has images"
            assert done == count, f"{done} of {count} rows"
            mapped.flush()
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def describe(self, fields: Mapping[str, Any], split: Split, *, images: int, seconds: float) -> None:
        """Write what the features are of, and what the pass over a split took."""
        passes: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            passes = json.loads(self.about.read_bytes())["passes"]
        passes[split] = {"images": images, "seconds": round(seconds, 3)}
        content = json.dumps({**fields, "passes": passes}, indent=1, sort_keys=True)
        write_atomically(self.about, content.encode() + b"\n")

    def keep_backbone(self, weights: Tensors) -> None:
        """Write the backbone's weights, without its head, unless they lie there: new images need them."""
        if load_tensors(self.backbone) is None:
            self.backbone.parent.mkdir(exist_ok=True)
            save_tensors(self.backbone, weights, Progress())

    def read_backbone(self) -> Tensors:
        """Return the backbone's weights. Raises ValueError where they are missing or damaged."""
        stored = load_tensors(self.backbone)
        if stored is None:
            raise ValueError(
                f"{self.backbone} is missing or damaged: the weights on which this trial's head stands;"
                " put it back, or remove the trial's folder and run it again"
            )
        return stored[0]
