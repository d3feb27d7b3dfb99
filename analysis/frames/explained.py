"""What `raypatch explain` left in the runs of some trials."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from raypatch.results import ExplanationPaths, SweepPaths
from raypatch.results.explained import DistanceRow, Pictures, SaliencyRow, read_pictures, read_rows


@dataclass(frozen=True)
class Explained:
    """Where trials look, in the order in which they were explained.

    distances: columns as DistanceRow, and dataset_label. saliency: columns as SaliencyRow, and
    dataset_label. pictures: by trial id.
    """

    distances: pd.DataFrame
    saliency: pd.DataFrame
    pictures: dict[str, Pictures]


def load_explained(trials: pd.DataFrame) -> Explained | None:
    """Read what is known of these trials, columns as in `trial_columns`; None where nothing is.

    Of a trial that several runs hold the first explanation counts. Raises DamagedFileError.
    """
    labels = dict(zip(trials["trial_id"], trials["dataset_label"], strict=True))
    distances: list[DistanceRow] = []
    saliency: list[SaliencyRow] = []
    pictures: dict[str, Pictures] = {}
    for paths in _explanations(trials["folder"]):
        # What is left over of trials that are gone is nothing that a report could name.
        own = [row for row in read_rows(paths.saliency, SaliencyRow) if row.trial_id in labels]
        new = {row.trial_id for row in own} - pictures.keys()
        saliency += [row for row in own if row.trial_id in new]
        distances += [row for row in read_rows(paths.distances, DistanceRow) if row.trial_id in new]
        for trial_id in dict.fromkeys(row.trial_id for row in own):
            if trial_id in new:
                pictures[trial_id] = read_pictures(paths.pictures(trial_id))
    if not saliency:
        return None
    return Explained(_frame(distances, DistanceRow, labels), _frame(saliency, SaliencyRow, labels), pictures)


def _explanations(trial_folders: Sequence[str] | pd.Series) -> list[ExplanationPaths]:
    """Those of the runs that the trials lie in: RUN/trials/TRIAL."""
    runs = dict.fromkeys(Path(folder).parents[1] for folder in trial_folders)
    found = [SweepPaths(run).explanation for run in runs]
    return [paths for paths in found if paths.saliency.exists()]


def _frame(
    rows: Sequence[DistanceRow] | Sequence[SaliencyRow],
    kind: type[DistanceRow] | type[SaliencyRow],
    labels: dict[str, str],
) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=[column.name for column in fields(kind)])
    return frame.assign(dataset_label=frame["trial_id"].map(labels))
