"""How well the maps of each trial do, over the images, with intervals."""

from typing import Any

import numpy as np
import pandas as pd

from raypatch.analysis.statistics.draws import RESAMPLES, draw_images
from raypatch.analysis.statistics.inference import Interval, value_interval

MEASURES = ("half_area", "pointing", "mass_ratio", "deletion", "insertion")
"""What is measured of a map."""


def summarise_saliency(saliency: pd.DataFrame, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Return the mean of each measure over the images of each trial and map, with its 95 % interval.

    saliency: as `Explained`. Columns: dataset_label, trial_id, level, map, images, and of each measure
    its mean, _low and _high, NaN where no image has it. The interval is over the test images, by
    patient where the data says; the trained model stays.
    """
    rows = []
    for (dataset, trial_id, level, name), part in saliency.groupby(
        ["dataset_label", "trial_id", "level", "map"], sort=False
    ):
        row: dict[str, Any] = {"dataset_label": dataset, "trial_id": trial_id, "level": level, "map": name}
        row["images"] = len(part)
        for measure in MEASURES:
            found = _mean(part, measure, resamples)
            row |= {measure: found.estimate, f"{measure}_low": found.low, f"{measure}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(part: pd.DataFrame, measure: str, resamples: int) -> Interval:
    known = part[part[measure].notna()]
    if known.empty:
        return Interval(np.nan, np.nan, np.nan)
    values = known[measure].to_numpy(float)
    # Images without a known patient are each their own.
    patients = known["patient"].where(known["patient"] != "", known["index"].astype(str)).to_numpy(str)
    weights = draw_images(np.zeros(len(values), np.int64), resamples, groups=patients)
    drawn = (weights.T.astype(float) @ values) / weights.sum(axis=0)
    # Pointing is a share of the images; the others are means of numbers, which may be alike in all of them.
    bounds = (0, 1) if measure == "pointing" else None
    return value_interval(np.array([values.mean()]), drawn[None], len(np.unique(patients)), bounds)
