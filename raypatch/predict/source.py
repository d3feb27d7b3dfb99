"""Images to predict on, with what their source knows of them: name, truth, patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import channels_first
from raypatch.data.batches.resize import resize_images
from raypatch.data.catalog import Split
from raypatch.data.inputs import InputRule, read_inputs
from raypatch.data.inputs.reading import read_listed
from raypatch.data.inputs.scan import ImageFiles, format_of, is_hidden
from raypatch.data.layout.archive import Archive, DataError
from raypatch.data.layout.labels import read_texts
from raypatch.data.layout.npz import count_new_images
from raypatch.data.own import is_source
from raypatch.data.pack import PackOptions
from raypatch.data.pack.sources.kinds import list_source
from raypatch.data.pack.sources.listing import Item
from raypatch.results import DatasetFacts
from raypatch.trial_fields.data import Resize
from raypatch.words import first_of

UNKNOWN = -1
"""The label of an image of which the source has none."""


@dataclass(frozen=True)
class Truth:
    """What is true of N images.

    labels: (N,) numbers of `classes`, UNKNOWN where there is none, or (N, L) of 0 and 1.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def words(self) -> list[str]:
        """Return what is true of each image, in words; empty where it is not known."""
        said = []
        for label in self.labels:
            if np.ndim(label):
                found = [name for name, holds in zip(self.classes, label, strict=True) if holds]
                said.append("; ".join(found))
            else:
                said.append(self.classes[label] if label != UNKNOWN else "")
        return said


@dataclass(frozen=True)
class Source:
    """N images to predict on, not read yet. truth, patients: (N,) where the source knows them.

    listed: the files, of a folder with classes or of a table; None for what `read_inputs` reads.
    """

    path: Path
    split: Split
    names: tuple[str, ...]
    truth: Truth | None = None
    patients: NDArray[np.str_] | None = None
    listed: tuple[ImageFiles, ...] | None = None

    def files(self, facts: DatasetFacts) -> tuple[ImageFiles, ...] | None:
        """Where each image lies; None for an .npz."""
        if self.path.suffix == ".npz":
            return None
        return self.listed if self.listed is not None else _list_plain(self.path, facts)[1]

    def read(self, config: TrialConfig, facts: DatasetFacts) -> torch.Tensor:
        """Read the images as a trial takes them: uint8 (N, C, *spatial). Raises DataError."""
        rule = InputRule.from_json(facts.rule) if facts.rule else None
        # A model that was trained on a file of another resolution sees new images at that resolution first, as it
        # saw its own.
        size = config.resolution or config.image_size
        resize: Resize = "bilinear" if config.resolution else config.resize
        if self.listed is None:
            _, images = read_inputs(
                self.path,
                self.split,
                dimensions=facts.dimensions,
                channels=facts.channels,
                image_size=size,
                resize=resize,
                rule=rule,
            )
            return images
        tensors = []
        for values in read_listed(self.listed, facts.dimensions, facts.channels, rule):
            tensor = channels_first(values[None], dimensions=facts.dimensions)
            tensors.append(resize_images(tensor, size, resize))
        return torch.cat(tensors)


def open_source(path: Path, split: Split, facts: DatasetFacts, columns: Mapping[str, str] | None = None) -> Source:
    """Return what a path holds: an .npz, a folder of images, a folder with class folders, or a table with files.

    split: of an .npz, and of a folder or table that says splits. columns: of a table, by role; they
    are guessed where there are none. Raises DataError for a path that holds nothing of the kind.
    """
    if path.suffix == ".npz":
        return _open_npz(path, split)
    if is_source(str(path)) and not _is_plain(path):
        options = PackOptions(columns=dict(columns or {}), dimensions=facts.dimensions)
        return _open_listing(path, split, options)
    names, _ = _list_plain(path, facts)
    return Source(path, split, names)


def _is_plain(path: Path) -> bool:
    """Whether a folder holds images itself and no table, so that nothing says what is true of them."""
    if not path.is_dir():
        return False
    files = [file for file in path.iterdir() if file.is_file() and not is_hidden(file)]
    has_images = any(format_of(file) in ("picture", "nifti", "dicom") for file in files)
    return has_images and not any(file.suffix.lower() in (".csv", ".tsv") for file in files)


def _list_plain(path: Path, facts: DatasetFacts) -> tuple[tuple[str, ...], tuple[ImageFiles, ...]]:
    from raypatch.data.inputs.reading import list_images

    images = tuple(list_images(path, facts.dimensions))
    return tuple(image.name for image in images), images


def _open_listing(path: Path, split: Split, options: PackOptions) -> Source:
    listing = list_source(path, options)
    items = _of_split(path, listing.items, split)
    names = tuple(item.image.name for item in items)
    patients = None
    if all(item.patient is not None for item in items):
        patients = np.array([item.patient for item in items], dtype=np.str_)
    return Source(path, split, names, _listed_truth(items, listing.columns), patients, tuple(i.image for i in items))


def _of_split(path: Path, items: Sequence[Item], split: Split) -> list[Item]:
    """The items of the split, where the source says splits; else all."""
    there_are = sorted({item.split for item in items if item.split is not None})
    if not there_are:
        return list(items)
    chosen = [item for item in items if item.split == split]
    if not chosen:
        raise DataError(f"{path} holds no images of {split}; it has {', '.join(there_are)}: choose with --split")
    return chosen


def _listed_truth(items: Sequence[Item], columns: tuple[str, ...]) -> Truth | None:
    labels = [item.label for item in items]
    if columns:
        rows = [label for label in labels if isinstance(label, tuple)]
        return Truth(np.array(rows, np.int64), columns) if len(rows) == len(items) else None
    names = sorted({label for label in labels if isinstance(label, str) and label})
    if not names:
        return None
    numbers = [names.index(label) if isinstance(label, str) and label else UNKNOWN for label in labels]
    return Truth(np.array(numbers, np.int64), tuple(names))


def _open_npz(path: Path, split: Split) -> Source:
    key, count = count_new_images(path, split)
    with Archive(path) as archive:
        ids = read_texts(archive, [f"{key}_ids"], [count])
        patients = read_texts(archive, [f"{key}_patients"], [count])
        if patients is None:
            patients = read_texts(archive, [f"{key}_groups"], [count])
        truth = _npz_truth(archive, f"{key}_labels", count)
    names = tuple(map(str, ids)) if ids is not None else tuple(f"{key}:{index}" for index in range(count))
    return Source(path, split, names, truth, patients)


def _npz_truth(archive: Archive, key: str, count: int) -> Truth | None:
    if key not in archive:
        return None
    labels = archive.array(key)
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2) or len(labels) != count:
        raise archive.error(key, f"is {labels.dtype} of shape {labels.shape}, must be whole numbers, one row per image")
    labels = labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    outputs = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=0)) + 1
    if "class_names" not in archive:
        return Truth(labels, tuple(map(str, range(outputs))))
    classes = tuple(map(str, archive.array("class_names").ravel()))
    if labels.min(initial=0) < 0 or len(classes) < outputs:
        raise archive.error(key, f"holds labels that class_names, {len(classes)} names, does not name")
    return Truth(labels, classes)


def match_truth(truth: Truth, facts: DatasetFacts, rename: Mapping[str, str] | None = None) -> NDArray[np.int64]:
    """Return the labels as a model numbers its classes: (N,), UNKNOWN kept, or (N, C) of 0 and 1.

    Classes are matched by name, whatever their case; rename: what a class of the source is called
    in the model. Raises ValueError naming the classes that do not match.
    """
    rename = {plain_name(theirs): ours for theirs, ours in (rename or {}).items()}
    ours = {plain_name(name): place for place, name in enumerate(facts.classes)}
    several = truth.labels.ndim == 2
    if several != (facts.task == "multilabel"):
        raise ValueError(
            f"the labels are {'several per image' if several else 'one class per image'},"
            f" the model's task is {facts.task}: give labels of that kind"
        )
    places, unmatched = [], []
    for number, name in enumerate(truth.classes):
        wanted = plain_name(rename.get(plain_name(name), name))
        occurs = several or bool((truth.labels == number).any())
        if wanted not in ours and occurs:
            unmatched.append(name)
        places.append(ours.get(wanted, UNKNOWN))
    if unmatched:
        raise ValueError(
            f"the classes {first_of(unmatched)} are none of the model's, which are {', '.join(facts.classes)};"
            " say which they are with --rename THEIRS=OURS,..., or leave their images out"
        )
    if several:
        labels = np.zeros((len(truth.labels), len(facts.classes)), np.int64)
        labels[:, places] = truth.labels
        return labels
    lookup = np.array([*places, UNKNOWN])
    return lookup[truth.labels]


def plain_name(name: str) -> str:
    """The name of a class as names are compared: whatever its case and its spaces."""
    return " ".join(name.casefold().split())
