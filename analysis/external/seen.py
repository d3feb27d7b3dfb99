"""External images that a run has seen already: they repeat one of its own splits, or show a patient of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from raypatch.config import RunOptions
from raypatch.data.batches.augment import channels_first
from raypatch.data.batches.resize import resize_images
from raypatch.data.catalog import SPLITS, Split
from raypatch.data.check.twins import Twin, find_repeats
from raypatch.data.layout.npz import DataError
from raypatch.data.source import load_index, load_split, load_texts
from raypatch.predict import FinishedTrial
from raypatch.predict.source import Source
from raypatch.results import SweepPaths, read_sweep
from raypatch.storage.own_files import move_own_files
from raypatch.tasks import reads_masks
from raypatch.trial_fields.data import Resize

LEARNT: tuple[Split, ...] = ("train", "val")
"""What the models were trained and chosen on."""


@dataclass(frozen=True)
class Seen:
    """What a run's own splits have of N external images.

    twins: an image and the one of the run that it repeats, as if the images were the test. patients:
    by split of the run those external patients whose name occurs there; nothing where nobody is
    known. unknown: why none of this could be found out.
    """

    twins: tuple[Twin, ...] = ()
    patients: Mapping[Split, tuple[str, ...]] = field(default_factory=dict)
    unknown: str = ""

    def rows(self, *splits: Split) -> NDArray[np.int64]:
        """Return which external images repeat one of these splits, ascending."""
        return np.unique(np.array([twin.index for twin in self.twins if twin.of_split in splits], np.int64))

    def equal(self, *splits: Split) -> int:
        """Return how many of them are equal in every pixel."""
        return len({twin.index for twin in self.twins if twin.of_split in splits and twin.equal})

    def counts(self) -> pd.DataFrame:
        """Return a row per split of the run: external images that repeat it, equal ones, patients in it."""
        rows = []
        for split in SPLITS:
            patients = len(self.patients[split]) if split in self.patients else None
            rows.append((split, len(self.rows(split)), self.equal(split), patients))
        return pd.DataFrame(rows, columns=["split", "images", "equal", "patients"])

    def pairs(self, names: tuple[str, ...]) -> str:
        """Return a CSV of each external image and the one that it repeats; names: of the external images."""
        rows = []
        for twin in self.twins:
            rows.append((names[twin.index], twin.of_split, twin.of_index, twin.likeness, twin.equal))
        return pd.DataFrame(rows, columns=["name", "split", "index", "likeness", "equal"]).to_csv(index=False)


def find_seen(run: Path, member: FinishedTrial, source: Source, images: torch.Tensor) -> Seen:
    """Compare external images, as `source.read` gives them, with those that a trial's run learnt and tested on.

    Near-duplicates are looked for at the size that the model sees. Of a trial on a part of train,
    all of train counts.
    """
    options = RunOptions.model_validate(read_sweep(SweepPaths(run).record).options)
    files = move_own_files(options.files, [], [], list(run.absolute().parents)[:3])
    options = options.model_copy(update={"files": files})
    try:
        own = {split: _own_images(member, split, options, tuple(images.shape[2:])) for split in SPLITS}
        who = {split: _own_patients(member, split, len(own[split]), options) for split in SPLITS}
    except DataError as error:
        # What it says after the semicolon is how a training is started with the file.
        return Seen(unknown=str(error).partition(";")[0])
    patients: dict[Split, tuple[str, ...]] = {}
    for split, names in who.items():
        if source.patients is not None and names is not None:
            patients[split] = tuple(sorted(names.intersection(source.patients.tolist())))
    return Seen(tuple(find_repeats(images, own)), patients)


def _own_images(member: FinishedTrial, split: Split, options: RunOptions, spatial: tuple[int, ...]) -> torch.Tensor:
    config = member.config
    loaded = load_split(
        config.source,
        split,
        # A file with masks may have no labels.
        masks=reads_masks(member.dataset.task),
        fold=config.fold,
        data_dir=options.data_dir,
        files=options.files,
    )
    images = channels_first(loaded.images, dimensions=member.dataset.dimensions)
    # As the external ones were brought to their size; a border of the mean is not there yet.
    mode: Resize = "bilinear" if config.resolution or config.resize == "pad_mean" else config.resize
    return resize_images(images, spatial[0], mode)


def _own_patients(member: FinishedTrial, split: Split, count: int, options: RunOptions) -> set[str] | None:
    """The patients of the `count` images of a split; None where the data does not say."""
    config = member.config
    names = load_texts(
        config.source, "patients", split, fold=config.fold, data_dir=options.data_dir, files=options.files
    )
    if names is None:
        return None
    index = load_index(config.source, split, count, fold=config.fold, data_dir=options.data_dir, files=options.files)
    return set(names[index].tolist())
