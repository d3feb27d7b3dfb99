"""Tables apart from their look: cells with a mark for the best, written as Markdown, LaTeX or CSV."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

LEAST_WIDTH = 3
"""Markdown wants at least three dashes in the rule beneath a heading."""


@dataclass(frozen=True)
class Cell:
    """One shown value; `best` has it printed bold."""

    text: str
    best: bool = False


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table as it is shown, and the numbers behind it.

    name: stem of its files. columns: headings. blocks: rows in groups, a rule between two groups in
    print. labels: how many leading columns are names, set left; the rest are numbers, set right.
    data: the full numbers.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[Row, ...], ...]
    labels: int = 1
    note: str = ""
    data: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def row_count(self) -> int:
        """Rows over all blocks."""
        return sum(map(len, self.blocks))


def text_cells(values: Iterable[object]) -> Row:
    """Return one cell of plain text for each value."""
    return tuple(Cell(str(value)) for value in values)


def name_cell(value: object) -> Cell:
    """Return the cell of a name or of a hyperparameter's value."""
    return Cell(f"{value:g}" if isinstance(value, float) else str(value))


def name_cells(values: Iterable[object]) -> Row:
    """Return `name_cell` of each value."""
    return tuple(map(name_cell, values))


def to_markdown(table: Table) -> str:
    """Return a GitHub table with padded columns, its title above and its note beneath."""
    rows = [[_escape_bar(column) for column in table.columns]]
    for block in table.blocks:
        for row in block:
            rows.append([_markdown_cell(cell) for cell in row])
    columns = zip(*rows, strict=True)
    widths = [max(LEAST_WIDTH, *map(len, column)) for column in columns]
    head, *body = [_markdown_line(row, widths, table.labels) for row in rows]
    lines = "\n".join([head, _markdown_rule(widths, table.labels), *body])
    note = f"\n{table.note}\n" if table.note else ""
    return f"**{table.title}**\n\n{lines}\n{note}"


def list_items(sentences: Iterable[str]) -> list[str]:
    """Return each sentence as an item of a Markdown list."""
    return [f"- {sentence}" for sentence in sentences]


def _escape_bar(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown_cell(cell: Cell) -> str:
    text = _escape_bar(cell.text)
    return f"**{text}**" if cell.best else text


def _markdown_rule(widths: Sequence[int], labels: int) -> str:
    """The line beneath the headings; a colon at its end sets a column right."""
    dashes = []
    for place, width in enumerate(widths):
        dashes.append("-" * width if place < labels else "-" * (width - 1) + ":")
    return f"| {' | '.join(dashes)} |"


def _markdown_line(row: Sequence[str], widths: Sequence[int], labels: int) -> str:
    padded = []
    for place, (text, width) in enumerate(zip(row, widths, strict=True)):
        padded.append(text.ljust(width) if place < labels else text.rjust(width))
    return f"| {' | '.join(padded)} |"


def write_csv(table: Table, path: Path) -> None:
    """Write the numbers behind the table, full precision, an empty field where undefined."""
    table.data.to_csv(path, index=False)
