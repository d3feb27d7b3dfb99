"""Holds that a report has every number of a report that version 0.1.0 wrote, which compared patch sizes alone."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

RENAMED = {"patch": "level", "patch_size": "level"}
NAMES = ("level", "baseline", "chosen", "best", "first", "second", "class", "true", "predicted")
"""Columns that are text now, though those of patch sizes read as numbers."""
CHANGED = re.compile(
    r"^((main|accuracy|balanced_accuracy|auc|scores_by|gains|compare).*:.*(low|high)|(gains|compare).*:p(_holm)?)$"
)
"""File and column of what version 0.1.0 computed otherwise: intervals and tests that did not hold with few seeds."""
SHARE = 1e-12
"""Of a number: what the order of a sum may change."""


def find_differences(old: Path, new: Path) -> list[str]:
    """Return what the CSV files beneath `old` say and those beneath `new` do not, one line each."""
    found = []
    for path in sorted(old.rglob("*.csv")):
        other = new / path.relative_to(old).parent / _new_name(path.name)
        if not other.exists():
            found.append(f"{other}: there is no such file")
            continue
        kept = [column for column in _read(path) if not CHANGED.match(f"{path.stem}:{column}")]
        found += [f"{other.name}: {line}" for line in _compare(_read(path)[kept], _read(other))]
    return found


def _new_name(name: str) -> str:
    return re.sub(r"__model_", "_", name)


def _read(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "patch" in frame and "patch_size" in frame:
        frame = frame.drop(columns="patch_size")
    frame = frame.rename(columns=RENAMED)
    if "ensemble" in frame:
        frame["kind"] = frame.pop("ensemble").map({"True": "ensemble", "False": "single"})
    if "panel" in frame:
        frame["panel"] = frame["panel"].str.replace("model=", "").str.replace(", patch size ", ", patch ")
    for column in ("dataset",):
        if column in frame:
            frame[column] = frame[column].str.replace("model=", "")
    for column in frame.columns.difference(NAMES):
        numbers = pd.to_numeric(frame[column].replace("", "nan"), errors="coerce")
        if numbers.notna().eq(frame[column].ne("")).all():
            frame[column] = numbers
    return frame


def _compare(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    if lacking := sorted(set(old) - set(new)):
        return [f"lacks the columns {', '.join(lacking)}"]
    if len(old) != len(new):
        return [f"has {len(new)} rows, not {len(old)}"]
    numeric = pd.api.types.is_numeric_dtype
    names = [column for column in old if not (numeric(old[column]) and numeric(new[column]))]
    numbers = [column for column in old if column not in names]
    # Rows are the same by what they name; numbers settle the order of those that name the same.
    order = [*names, *numbers]
    old, new = (frame[order].astype(dict.fromkeys(names, str)).sort_values(order) for frame in (old, new))
    said = []
    for column in names:
        if list(old[column]) != list(new[column]):
            said.append(f"{column}: {list(new[column])[:6]} ..., not {list(old[column])[:6]} ...")
    for column in numbers:
        if not np.allclose(old[column], new[column], rtol=SHARE, atol=SHARE, equal_nan=True):
            apart = np.nanmax(np.abs(old[column].to_numpy() - new[column].to_numpy()))
            said.append(f"{column}: differs by up to {apart:.3g}")
    return said
