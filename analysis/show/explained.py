"""What a report shows of where models look: attention distances, measures of the maps, and a gallery."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from raypatch.analysis.answer.saliency import summarise_saliency
from raypatch.analysis.frames.explained import Explained, load_explained
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.show.gallery import (
    Gallery,
    Picture,
    Pixels,
    Strip,
    as_colours,
    as_planes,
    draw_outline,
    lay_map,
    side_by_side,
)
from raypatch.analysis.show.plots.attention import attention_plot
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.tables.saliency import HEAD, saliency_tables
from raypatch.analysis.show.tables.table import Table, to_markdown
from raypatch.analysis.wording import file_stem
from raypatch.results.explained import Pictures

MASK, HALF = (0, 255, 190), (255, 255, 255)
"""Colours of outlines: what the mask marks, and the smallest set with half of a map."""


def explained_parts(trials: pd.DataFrame) -> tuple[tuple[Table, ...], tuple[Plot, ...], tuple[Gallery, ...]]:
    """Return tables, plots and galleries of what is known of these trials, columns as in `trial_columns`."""
    found = load_explained(trials)
    if found is None:
        return (), (), ()
    plots = () if found.distances.empty else (attention_plot(found.distances),)
    return tuple(saliency_tables(summarise_saliency(found.saliency))), plots, tuple(make_galleries(found))


def describe_explanation(folder: Path) -> str:
    """Return the tables of what was explained in a run folder, as Markdown, to print."""
    found = load_explained(load_study(folder).trials)
    assert found is not None, "it was explained"
    return "\n".join(map(to_markdown, saliency_tables(summarise_saliency(found.saliency))))


def make_galleries(found: Explained) -> Iterator[Gallery]:
    """Yield a gallery for each dataset: a strip per image, the maps of each level in it."""
    owners = found.saliency.drop_duplicates("trial_id")
    for dataset, own in owners.groupby("dataset_label", sort=False):
        trials = {str(level): found.pictures[trial] for level, trial in zip(own["level"], own["trial_id"], strict=True)}
        first = next(iter(trials.values()))
        strips = []
        for row in range(len(first.index)):
            strips.append(_strip(trials, row))
        marked = " The outline on the first picture is the mask." if first.masks is not None else ""
        planes = " Of a volume the three planes through its middle." if first.images.ndim == 5 else ""
        yield Gallery(
            name=f"maps_{file_stem(str(dataset))}",
            title=f"Where the models look: {dataset}",
            caption=(
                f"Test images that {next(iter(trials))} has right and wrong, most and least sure.{marked}{planes}"
                " Bright: much; the white line holds half of the map. Beneath: what the level says, and how sure it is."
            ),
            strips=tuple(strips),
        )


def _strip(trials: dict[str, Pictures], row: int) -> Strip:
    first = next(iter(trials.values()))
    planes = _planes_of(first, row)
    if first.masks is not None:
        planes = [draw_outline(*pair, MASK) for pair in zip(planes, as_planes(first.masks[row]), strict=True)]
    pictures = [Picture(f"true: {first.label[row]}", side_by_side(planes))]
    for level, own in trials.items():
        # A trial of another run may have been explained on other images.
        places = (own.index == first.index[row]).nonzero()[0]
        if len(places):
            pictures += _maps(level, own, int(places[0]))
    return Strip(f"{first.kind[row]}: image {first.index[row]}, {first.label[row]}", tuple(pictures))


def _maps(level: str, own: Pictures, row: int) -> Iterator[Picture]:
    said = f"{own.predicted[row]} {100 * own.probability[row]:.0f}\N{NO-BREAK SPACE}%"
    for name, maps in own.maps.items():
        values = maps[row].astype(np.float32)
        highest = float(values.max())
        values = values / highest if highest > 0 else values
        planes = []
        parts = zip(_planes_of(own, row), as_planes(values), as_planes(own.halves[name][row]), strict=True)
        for pixels, plane, half in parts:
            planes.append(draw_outline(lay_map(pixels, plane), half, HALF))
        yield Picture(f"{level}, {name}: {said}", side_by_side(planes), detail=name.startswith(HEAD))


def _planes_of(own: Pictures, row: int) -> list[Pixels]:
    """The image without a map, each of its planes as pixels."""
    channels = [as_planes(channel) for channel in own.images[row]]
    return [as_colours(np.stack(plane)) for plane in zip(*channels, strict=True)]
