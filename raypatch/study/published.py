"""Tables of a publication, which a report shows beside what was found: read with the study, checked before it runs."""

import csv
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

PERCENT = " %"
"""How the heading of a column ends whose scores are percent; others run 0 to 1."""


def read_tables(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content of a study with the text of each table in place of its file's path.

    A path starts in `folder`, where the study lies. Raises ValueError for a file that cannot be read.
    """
    read = dict(content)
    entries = content.get("expect")
    if not isinstance(entries, (list, tuple)):
        return read
    read["expect"] = [_with_text(entry, folder) for entry in entries]
    return read


def _with_text(entry: Any, folder: Path) -> Any:
    table = entry.get("table") if isinstance(entry, Mapping) else None
    # A table that stands in the study itself has several lines; a path has one.
    if not isinstance(table, str) or not table or "\n" in table:
        return entry
    path = folder / table
    try:
        return {**entry, "table": path.read_text("utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"expect: cannot read the table {path}: {error}") from error


def read_rows(table: str) -> list[dict[str, str]]:
    """Return the rows of a table's text, by heading; an empty cell is an empty text."""
    lines = csv.DictReader(table.splitlines(), skipinitialspace=True, restval="")
    return list(lines)


def score_columns(table: str, known: Collection[str]) -> list[str]:
    """Return the headings of the scores: all that name neither a field of a trial nor an axis (`known`)."""
    headings = list(read_rows(table)[0])
    return [heading for heading in headings if heading not in known]


def score_of(heading: str, text: str) -> float:
    """Return a score of 0 to 1 from a cell, NaN from an empty one. Raises ValueError for what is no number."""
    if not text.strip():
        return math.nan
    number = float(text)
    return number / 100 if heading.endswith(PERCENT) else number


def check_table(table: str, known: Collection[str]) -> None:
    """Raise ValueError for a table without datasets or scores, with a cell too many, or with a score that is none.

    known: the fields of a trial and the axes of the study; every other column is a score.
    """
    rows = read_rows(table)
    if not rows or "dataset" not in rows[0]:
        raise ValueError("expect: a table needs a heading, with a column `dataset`, and a row at least")
    scores = score_columns(table, known)
    if not scores:
        raise ValueError(f"expect: a table needs a column of scores, such as `accuracy`, beside {', '.join(rows[0])}")
    for number, row in enumerate(rows, 2):
        if None in row:
            raise ValueError(f"expect: line {number} of the table has more cells than its heading has columns")
        for heading in scores:
            _check_score(heading, row[heading], number)


def _check_score(heading: str, text: str, line: int) -> None:
    try:
        score_of(heading, text)
    except ValueError:
        raise ValueError(
            f"expect: line {line} of the table has {text!r} under {heading}, neither a field of a trial nor an axis of"
            " the study, so a score: a number, or percent where the heading ends in %"
        ) from None
