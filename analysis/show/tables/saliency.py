"""Tables of how well maps do: against masks, or by deletion and insertion."""

from collections.abc import Hashable, Iterator
from typing import Any

import pandas as pd

from raypatch.analysis.show.tables.table import Table, text_cells
from raypatch.analysis.wording import UNDEFINED, score_with_interval

HEAD = "attention head"
REFERENCES = "`random` and `centre` know no model: noise on the map's grid, and a fall from the middle outwards."
KINDS = {
    "saliency_masks": (
        "Do the maps lie on what the masks mark?",
        {"pointing": "Pointing game, %", "mass_ratio": "Mass ratio", "half_area": "Half of the map in, %"},
        "Pointing game: how often a map's maximum lies in the mask. Mass ratio: the share of the map inside the mask"
        " over the mask's share of the image; 1 is chance.",
    ),
    "saliency_deletion": (
        "Do the maps find what decides?",
        {"deletion": "Deletion, %", "insertion": "Insertion, %", "half_area": "Half of the map in, %"},
        "Areas under the probability of the predicted class as the pixels go (less is better) or come (more is better),"
        " the map's best first, in tenths; what is not there has the image's mean colour.",
    ),
}


def saliency_tables(summary: pd.DataFrame) -> Iterator[Table]:
    """Yield a table of the trials whose data has masks, and one of the others; each attention head is in the CSV alone.

    summary: as `summarise_saliency` gives it.
    """
    for name, (title, measures, note) in KINDS.items():
        first = next(iter(measures))
        data = summary[summary.groupby("trial_id")[first].transform("count") > 0]
        if not data.empty:
            yield _table(name, title, measures, f"{note} {REFERENCES}", data)


def _table(name: str, title: str, measures: dict[str, str], note: str, data: pd.DataFrame) -> Table:
    blocks = []
    shown = data[~data["map"].str.startswith(HEAD)]
    for _, block in shown.groupby("trial_id", sort=False):
        rows = []
        for row in block.to_dict("records"):
            cells = [row["dataset_label"], row["level"], row["map"], row["images"]]
            cells += [_cell(row, measure) for measure in measures]
            rows.append(text_cells(cells))
        blocks.append(tuple(rows))
    kept = ["dataset_label", "trial_id", "level", "map", "images"]
    for measure in measures:
        kept += [measure, f"{measure}_low", f"{measure}_high"]
    return Table(
        name=name,
        title=title,
        columns=("Dataset", "Level", "Map", "Images", *measures.values()),
        blocks=tuple(blocks),
        labels=3,
        note=f"{note} Half of the map: the share of the image that its smallest half takes. Brackets: 95 %"
        " intervals for other test images; one trained model of each level.",
        data=data[kept],
    )


def _cell(row: dict[Hashable, Any], measure: str) -> str:
    value, low, high = row[measure], row[f"{measure}_low"], row[f"{measure}_high"]
    if pd.isna(value):
        return UNDEFINED
    if measure == "mass_ratio":
        return f"{value:.2f} ({low:.2f}–{high:.2f})"
    return score_with_interval(value, float("nan"), low, high)
