"""Models that are no better than always saying the most frequent class: found in predictions, told in a sentence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from raypatch.analysis.statistics.stacks import Stack
from raypatch.factors import Factor
from raypatch.tasks import Metric, Task
from raypatch.tasks.majority import majority_score, says_one_class
from raypatch.tasks.metrics import BALANCED_ACCURACY
from raypatch.words import counted

MAJORITY_COLUMNS = ["level", "no_better", "one_class"]


def compare_with_majority(
    stacks: Mapping[str, Stack], task: Task, metrics: Iterable[Metric], intervals: pd.DataFrame
) -> pd.DataFrame:
    """Return a row of MAJORITY_COLUMNS per level; none for a task without balanced accuracy.

    intervals: level, metric, low. no_better: the interval of the level's balanced accuracy holds that
    of a model that always says the most frequent class. one_class: with how many of its seeds a level
    predicts the same class for every image.
    """
    rows = []
    for metric in metrics:
        if metric.name != BALANCED_ACCURACY.name:
            continue
        lows = intervals[intervals["metric"] == metric.name].set_index("level")["low"]
        for level, stack in stacks.items():
            least = majority_score(stack.label, task, stack.probability.shape[2], metric)
            members = [says_one_class(member, stack.label, task) for member in stack.probability]
            rows.append((level, bool(lows[level] <= least), sum(members)))
    return pd.DataFrame(rows, columns=MAJORITY_COLUMNS)


def mark_majority(cells: pd.DataFrame, majority: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the cells with the columns no_better and one_class; False and 0 where nothing is known."""
    marked = cells.merge(majority[[*keys, "no_better", "one_class"]], how="left", on=list(keys))
    # A cell without a mark makes objects of the column's booleans.
    marked["no_better"] = marked["no_better"].eq(other=True)
    marked["one_class"] = marked["one_class"].fillna(0).astype(int)
    return marked


def say_majority(cells: pd.DataFrame, factor: Factor, settings: Sequence[Factor]) -> Iterator[str]:
    """Yield a sentence for levels that are not shown to be better, and one for those that predict one class alone."""
    no_better = list(_name_cells(cells[cells["no_better"]], factor, settings))
    if no_better:
        yield f"Not shown to be better than always saying the most frequent class: {'; '.join(no_better)}."
    alone = cells[cells["one_class"] > 0]
    same = []
    for name, cell in zip(_name_cells(alone, factor, settings), alone.to_dict("records"), strict=True):
        same.append(f"{name} ({cell['one_class']} of {counted(cell['seeds'], 'seed')})")
    if same:
        yield f"The same class for every test image: {'; '.join(same)}."


def _name_cells(cells: pd.DataFrame, factor: Factor, settings: Sequence[Factor]) -> Iterator[str]:
    """Each cell in words: linear probe, patch size 7 on breastmnist."""
    for cell in cells.to_dict("records"):
        phrases = [factor.phrase(str(cell["level"]))]
        phrases += [setting.phrase(str(cell[setting.name])) for setting in settings]
        yield f"{', '.join(phrases)} on {cell['dataset_label']}"
