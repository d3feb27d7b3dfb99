"""Over several settings: the mean of a score over the settings in which every level was run."""

from collections.abc import Mapping, Sequence

import pandas as pd

from raypatch.analysis.answer.evidence import EVIDENCE_COLUMNS, compare_levels
from raypatch.analysis.answer.scores.cells import DATASET_KEYS, Question
from raypatch.analysis.statistics.inference import LevelScores

MeasuredLevels = Mapping[tuple[object, ...], LevelScores]
"""The headline metric by the keys of a series and a level."""


def common_settings(cells: pd.DataFrame, question: Question) -> pd.DataFrame:
    """Return the cells of the settings in which every dataset that is left has every level; empty where there is none.

    cells: of single models and one dimensionality. A setting that has all levels for the fewest
    datasets is dropped first, until some dataset has all levels in all settings that are left.
    """
    keys = question.setting_keys
    levels = cells["level"].nunique()
    counts = cells.groupby([*keys, "dataset"], sort=False, dropna=False)["level"].nunique()
    whole = (counts == levels).unstack("dataset", fill_value=False)
    while len(whole):
        datasets = whole.columns[whole.all(axis=0)]
        if len(datasets):
            kept = cells[cells["dataset"].isin(datasets)]
            settings = pd.MultiIndex.from_frame(kept[keys])
            return kept[settings.isin(_as_multi(whole.index, keys))]
        whole = whole.drop(whole.index[int(whole.sum(axis=1).argmin())])
    return cells.iloc[:0]


def _as_multi(index: pd.Index, keys: Sequence[str]) -> pd.MultiIndex:
    """The index as one of tuples, which pandas makes of several columns only."""
    if isinstance(index, pd.MultiIndex):
        return index
    return pd.MultiIndex.from_arrays([index], names=list(keys))


def average_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over the settings of every `<measure>_mean`, by dataset and level; all settings count alike."""
    means = [name for name in map(str, cells) if name.endswith("_mean")]
    return cells.groupby([*DATASET_KEYS, "level"], sort=False)[means].mean().reset_index()


def average_differences(cells: pd.DataFrame, question: Question, measured: MeasuredLevels) -> pd.DataFrame:
    """Return the differences of the means over the settings: columns of EVIDENCE_COLUMNS, and the dataset's.

    The images of a dataset are the same in all settings and drawn once for all; the seeds are
    trainings of their own. A dataset of which a cell has no stored predictions is left out.
    """
    rows: list[tuple[object, ...]] = []
    for dataset, block in cells.groupby(DATASET_KEYS, sort=False):
        whole = {}
        for level, own in block.groupby("level", sort=False):
            keys = own[question.cell].itertuples(index=False, name=None)
            found = [measured.get(key) for key in keys]
            # A mean over fewer settings than another level's would not be of the same.
            known = [scores for scores in found if scores is not None]
            if len(known) == len(found):
                whole[str(level)] = known
        for row in compare_levels(whole):
            rows.append((*dataset, *row))
    return pd.DataFrame(rows, columns=[*DATASET_KEYS, *EVIDENCE_COLUMNS["differences"]])
