"""The datasets by name: aliases, task, shape, classes and whether a mirror image keeps its label.

The facts of the 18 MedMNIST v2 sets stand in `medmnist.json`, taken from `medmnist.INFO` 3.0.2 (a
test compares the two), so that the core runs where the medmnist package is not installed.
"""

import difflib
import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Literal

LabelKind = Literal["binary", "multiclass", "ordinal", "multilabel"]
Task = Literal[LabelKind, "segmentation"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without reading its images.

    name: canonical name, also the stem of its file (`dermamnist`, `dermamnist_64`, `phantom3d`).
    task: `multilabel` has one 0/1 column per class, `segmentation` a mask of class numbers, the others one
    column of class numbers.
    classes: class names in label order.
    channels: 1 (grey) or 3 (RGB). dimensions: 2 (images) or 3 (volumes).
    size: edge in pixels or voxels. counts: images in train, val and test.
    mirror_safe: False where the label tells left from right, so that a flip would falsify it.
    folds: for cross-validation, 0 where the file has none. rule: JSON of the InputRule by which an
    own file was packed, None where it does not say.
    md5: of the official file; None for made images and a user's own file.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    channels: int
    dimensions: int
    size: int
    counts: tuple[int, int, int]
    mirror_safe: bool = True
    folds: int = 0
    rule: str | None = None
    licence: str = ""
    md5: str | None = None

    @property
    def made_up(self) -> bool:
        """True for the made images, which show that the tool works and nothing about medicine."""
        return self.name.startswith("phantom")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image as the model sees its grid: (H, W) or (D, H, W)."""
        return (self.size,) * self.dimensions

    def training_images(self, fraction: float) -> int:
        """How many training images a share of them is, up to the rounding of each class."""
        return max(1, round(fraction * self.counts[0]))


_PHANTOM_CLASSES = ("small smooth", "small grainy", "large smooth", "large grainy")
_PHANTOM_COUNTS = (720, 160, 240)


@functools.cache
def catalog() -> dict[str, DatasetInfo]:
    """Every dataset known by name, at every size that MedMNIST+ offers, in MedMNIST's order."""
    facts = json.loads(resources.files(__package__).joinpath("medmnist.json").read_text("utf-8"))
    known = {}
    for stem, entry in facts.items():
        for size, md5 in entry["md5"].items():
            # As MedMNIST names its files: 28 pixels are not said.
            name = stem if size == "28" else f"{stem}_{size}"
            known[name] = DatasetInfo(
                name=name,
                task=entry["task"],
                classes=tuple(entry["classes"]),
                channels=entry["channels"],
                dimensions=entry["dimensions"],
                size=int(size),
                counts=tuple(entry["counts"]),
                # The labels of the organ sets tell a left kidney from a right one.
                mirror_safe=not stem.startswith("organ"),
                licence=entry["licence"],
                md5=md5,
            )
    phantoms = (("phantom2d", 1, 2), ("phantom2d_rgb", 3, 2), ("phantom3d", 1, 3))
    for name, channels, dimensions in phantoms:
        known[name] = DatasetInfo(
            name=name,
            task="multiclass",
            classes=_PHANTOM_CLASSES,
            channels=channels,
            dimensions=dimensions,
            size=28,
            counts=_PHANTOM_COUNTS,
            licence="made up by raypatch",
        )
    return known


@functools.cache
def _aliases() -> dict[str, str]:
    aliases = {}
    for name in catalog():
        plain = re.sub(r"[^a-z0-9]", "", name)
        aliases[plain] = name
        short = plain.replace("mnist", "")
        aliases.setdefault(short, name)
        # nodule for nodulemnist3d: short, where no 2D set has that name.
        if "mnist3d" in plain and short.replace("3d", "") + "mnist" not in catalog():
            aliases.setdefault(short.replace("3d", "", 1), name)
    # The only 3D set whose short name is no 2D name either, yet would be guessed as one of three.
    for size in ("", "64"):
        aliases.pop(f"organ{size}", None)
    return aliases


def canonical_name(name: str) -> str:
    """Return the canonical name of `name`: `derma`, `DermaMNIST` and `dermamnist` are one dataset.

    Raises ValueError with the nearest names when none fits.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain in _aliases():
        return _aliases()[plain]
    # Several aliases may be near and stand for one dataset: it is named once.
    near_aliases = difflib.get_close_matches(plain, _aliases(), n=5, cutoff=0.6)
    names = [_aliases()[alias] for alias in near_aliases]
    near = ", ".join(dict.fromkeys(names))
    hint = f"did you mean {near}?" if near else "`raypatch data list` shows all names."
    raise ValueError(
        f"unknown dataset {name!r}: {hint} Own images are given by the path of an .npz, a folder or a .csv",
    )


def dataset_info(name: str) -> DatasetInfo:
    """Return the facts of the dataset called `name` (any alias).

    Raises ValueError for an unknown name.
    """
    return catalog()[canonical_name(name)]
