"""Some test images of each dataset with the outlines of truth and prediction, a picture for each level."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.frames.columns import score_column
from raypatch.analysis.show.gallery import Gallery, Picture, Strip, as_colours, draw_outline
from raypatch.analysis.wording import file_stem, percent
from raypatch.results import DamagedFileError, TrialPaths
from raypatch.results.masks import Examples, read_examples
from raypatch.tasks import reads_masks
from raypatch.tasks.overlap import DICE, dice_of_images
from raypatch.tasks.segmentation import SEGMENTATION

TRUTH, PREDICTION = (0, 200, 160), (255, 170, 0)
"""Colours of outlines: green and orange, apart for the colour-blind too."""


def mask_galleries(findings: Findings) -> Iterator[Gallery]:
    """Yield a gallery for each series of segmentations: a strip per image, a picture per level."""
    question = findings.question
    masks = findings.trials[findings.trials["task"].map(reads_masks)]
    for _, series in masks.groupby(question.series, sort=False, dropna=False):
        by_level = _examples_by_level(series)
        if not by_level:
            continue
        row = series.iloc[0].to_dict()
        name = ", ".join(filter(None, (str(row["dataset_label"]), question.name_setting(row))))
        yield make_mask_gallery(
            by_level,
            name=f"masks_{file_stem(name)}",
            title=f"Masks: {name}",
            caption="Test images spread evenly over the split, the same for every level, the hardest first. Green: the"
            " truth; orange: the prediction of the seed that is the middle one by Dice on validation. Beneath: the Dice"
            " of the image, in percent.",
        )


def make_mask_gallery(
    by_level: Mapping[str, Examples], *, name: str, title: str, caption: str, names: Sequence[str] | None = None
) -> Gallery:
    """Return a strip for each image of the first level, a picture for each level, the hardest image first.

    names: what images are called, by their index; their number where nobody says.
    """
    first = next(iter(by_level.values()))
    strips = []
    for index in _hardest_first(by_level, first):
        heading = names[index] if names is not None else f"Image {index}"
        strips.append(_strip(by_level, index, heading))
    return Gallery(name=name, title=title, caption=caption, strips=tuple(strips))


def _examples_by_level(series: pd.DataFrame) -> dict[str, Examples]:
    """The examples of the middle seed of each level, by validation; levels without any are left out."""
    found = {}
    for level, trials in series.groupby("level", sort=False):
        ordered = trials.sort_values(score_column("val", DICE.name), kind="stable")
        folder = ordered["folder"].iloc[(len(ordered) - 1) // 2]
        try:
            examples = read_examples(TrialPaths(Path(folder)).examples)
        except DamagedFileError:
            continue
        if examples is not None:
            found[str(level)] = examples
    return found


def _hardest_first(by_level: Mapping[str, Examples], first: Examples) -> list[int]:
    """The indices of the images, by their mean Dice over the levels."""
    means = {}
    for index in first.index.tolist():
        scores = []
        for examples in by_level.values():
            place = _place_of(examples, index)
            if place is not None:
                scores.append(_dice(examples, place))
        means[index] = float(np.mean(scores))
    return sorted(means, key=means.__getitem__)


def _place_of(examples: Examples, index: int) -> int | None:
    places = np.flatnonzero(examples.index == index)
    return int(places[0]) if len(places) else None


def _dice(examples: Examples, place: int) -> float:
    truth, predicted = examples.truth[place][None], examples.predicted[place][None]
    classes = int(max(truth.max(), predicted.max(), 1))
    return float(dice_of_images(*SEGMENTATION.count(predicted, truth, classes))[0])


def _strip(by_level: Mapping[str, Examples], index: int, heading: str) -> Strip:
    pictures: list[Picture] = []
    for level, examples in by_level.items():
        place = _place_of(examples, index)
        if place is None:
            continue
        pixels = as_colours(examples.images[place])
        if not pictures:
            pictures.append(Picture("the image", pixels))
        pixels = _draw_classes(pixels, examples.truth[place], TRUTH)
        pixels = _draw_classes(pixels, examples.predicted[place], PREDICTION)
        pictures.append(Picture(f"{level}: {percent(_dice(examples, place))}", pixels))
    return Strip(heading, tuple(pictures))


def _draw_classes(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    for label in np.unique(mask[mask > 0]):
        pixels = draw_outline(pixels, mask == label, colour)
    return pixels
