"""Test images that repeat one of train or val, left out of every test score of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from raypatch.analysis.frames.columns import score_column
from raypatch.analysis.frames.trial_rows import Problem, Reading
from raypatch.results import DamagedFileError, Predictions, TrialPaths, read_predictions
from raypatch.results.repeated import repeated_key
from raypatch.tasks import find_task

LEFT_OUT = "left_out"
"""Column of the trials: indices of test images that are left out; only there where some are."""


def without(predictions: Predictions, indices: Sequence[int]) -> Predictions:
    """Return the predictions of all images but those of `indices`."""
    if not len(indices):
        return predictions
    return predictions.take(~np.isin(predictions.index, indices))


def leave_out_twins(reading: Reading, repeated: Mapping[str, Sequence[int]]) -> None:
    """Score each finished trial anew on the test images that repeat none of train or val.

    repeated: by dataset the indices of the others. Raises ValueError for a dataset of which that is
    not known.
    """
    for row, config in zip(reading.rows, reading.configs, strict=True):
        if row["status"] != "ok" or config.dataset.startswith("phantom"):
            continue
        key = repeated_key(config.dataset, config.fold)
        if key not in repeated:
            raise ValueError(
                f"it is not known which test images of {config.dataset_label} repeat one of train or val: the run is"
                f" older than that. `raypatch resume {Path(row['folder']).parents[1]}` finds out, if its data is there"
            )
        left_out = tuple(repeated[key])
        try:
            found = without(read_predictions(TrialPaths(Path(row["folder"])).predictions, "test"), left_out)
        except DamagedFileError as error:
            reading.problems.append(Problem(Path(row["folder"]), str(error)))
            continue
        scores = find_task(row["task"]).score(found.probability, found.label)
        for name in reading.metrics:
            column = score_column("test", name)
            if column in row:
                row[column] = scores.get(name, np.nan)
        row["test_images"] = len(found.index)
        row[LEFT_OUT] = left_out
