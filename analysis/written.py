"""What a command of the analysis leaves behind."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Written:
    """What was written. files: the page first. text: what to print, as Markdown. data: the same for scripts, JSON."""

    folder: Path
    files: tuple[Path, ...]
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """What was found, and where it was written, for scripts; no NaN, which JSON lacks: null."""
        written = {"folder": str(self.folder), "files": [str(path) for path in self.files]}
        return json.dumps({**self.data, "written": written}, indent=1, allow_nan=False)


def as_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row of a table as a map from column to plain value, None where it is undefined."""
    # Objects, because a column of numbers would turn None back into NaN.
    known = frame.astype(object).where(frame.notna(), None)
    return [{str(name): plain(value) for name, value in row.items()} for row in known.to_dict("records")]


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numpy's numbers as Python's, NaN and infinity as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value
