"""What is on the images, and who: class names made numbers, and a patient for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypatch.data.layout.archive import DataError
from raypatch.data.pack.sources.listing import Item, Say
from raypatch.words import agree, counted, first_of


@dataclass(frozen=True)
class Labels:
    """numbers: (N, 1) class numbers or (N, L) of 0 and 1; None where images have masks alone.
    classes: (N, C) of 0 and 1. names: of the classes.
    """

    numbers: NDArray[np.int64] | None
    classes: NDArray[np.int64]
    names: tuple[str, ...]


def number_labels(items: Sequence[Item], columns: tuple[str, ...]) -> Labels:
    """Return the labels of all items; columns: names of several that go together. Raises DataError for one class."""
    if columns:
        several = np.array([item.label for item in items], dtype=np.int64)
        return Labels(several, several, columns)
    said = [item.label for item in items if isinstance(item.label, str)]
    if not said:
        return Labels(None, np.ones((len(items), 1), dtype=np.int64), ("images",))
    names = sorted(set(said), key=_by_number)
    if len(names) < 2:
        raise DataError(f"all images are of one class, {first_of(names)}; at least two are needed")
    numbers = np.array([names.index(label) for label in said], dtype=np.int64)
    return Labels(numbers[:, None], np.eye(len(names), dtype=np.int64)[numbers], tuple(names))


def _by_number(name: str) -> tuple[int, float, str]:
    """Numbers by their value, before words by their letters."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


def fill_patients(items: Sequence[Item], say: Say) -> list[str] | None:
    """Who is on each image; an image of nobody known is one by itself. None where nobody is known at all."""
    unknown = sum(item.patient is None for item in items)
    if unknown == len(items):
        return None
    if unknown:
        name = agree(unknown, "names", "name")
        say(f"{counted(unknown, 'image')} {name} no patient: each is taken as one of its own")
    patients = []
    for item in items:
        patients.append(item.patient if item.patient is not None else f"of {item.image.name}")
    return patients
