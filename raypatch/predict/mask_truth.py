"""The true masks of another source, their classes numbered as a model numbers its own."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raypatch.data.layout.archive import Archive, DataError
from raypatch.data.layout.images import check_images
from raypatch.data.layout.labels import check_names
from raypatch.data.layout.masks import check_range, default_mask_names, read_masks
from raypatch.predict.source import Source, plain_name
from raypatch.results import DatasetFacts
from raypatch.words import first_of


def read_mask_truth(source: Source, facts: DatasetFacts, rename: Mapping[str, str] | None = None) -> NDArray[np.uint8]:
    """Return the masks (N, H, W) of a source's N images, an .npz, with the class numbers of the model.

    Classes are matched by name, whatever their case; 0 is the background on both sides. Masks
    without `mask_names` have the names that a model of as many classes gives to such. rename: what
    a class of the source is called in the model; several may be one, and any the background. Raises
    DataError for a source without masks and for masks that do not fit their images, ValueError
    naming the classes that do not match.
    """
    path, split = source.path, source.split
    if path.suffix != ".npz":
        raise DataError(
            f"{path} is no .npz: a segmentation is tested on {split}_images and {split}_masks of one. `raypatch data"
            " pack` makes it of a folder with images/ and masks/; choose what it deals with --split"
        )
    with Archive(path) as archive:
        if f"{split}_masks" not in archive or f"{split}_images" not in archive:
            raise archive.error(
                f"{split}_masks",
                f"and {split}_images are needed to test a segmentation, and it has {', '.join(archive.keys())}; choose"
                " with --split, or predict without masks: `raypatch predict`",
            )
        masks = read_masks(archive, split, check_images(archive, f"{split}_images"))
        has_names = "mask_names" in archive
        names = check_names(archive, "mask_names") if has_names else default_mask_names(len(facts.classes))
        present = np.unique(masks)
        check_range(archive, split, present, len(names))
    places = _match(names, present, facts.classes, rename or {})
    return places[masks]


def _match(
    theirs: Sequence[str], present: NDArray[np.uint8], ours: Sequence[str], rename: Mapping[str, str]
) -> NDArray[np.uint8]:
    """Return the model's number of each class of theirs. present: the numbers that occur in their masks."""
    renamed = {plain_name(name): called for name, called in rename.items()}
    known = {plain_name(name): place for place, name in enumerate(ours)}
    places = np.zeros(len(theirs), np.uint8)
    unmatched = []
    for number, name in enumerate(theirs):
        wanted = plain_name(renamed.get(plain_name(name), name))
        if number == 0:
            _require_background(name, known.get(wanted, 0), ours)
        elif wanted in known:
            places[number] = known[wanted]
        elif number in present:
            unmatched.append(name)
    if unmatched:
        raise ValueError(
            f"the classes {first_of(unmatched)} of the masks are none of the model's, which are {', '.join(ours)}; say"
            f" which they are with --rename THEIRS=OURS,..., such as --rename '{unmatched[0]}={ours[-1]}', or"
            f" '{unmatched[0]}={ours[0]}' to leave it out"
        )
    return places


def _require_background(name: str, place: int, ours: Sequence[str]) -> None:
    if place:
        raise ValueError(
            f"class 0 of the masks is called {name}, the model's {ours[place]}: 0 must be the background, {ours[0]};"
            " number the masks so"
        )
