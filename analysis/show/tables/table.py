"""Tables apart from their look: cells with a mark for the best, written as Markdown, LaTeX or CSV."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Cell:
    """One shown value; `best` has it printed bold."""

    text: str
    best: bool = False


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table as it is shown, and the numbers behind it.

    name: stem of its files. columns: headings. blocks: rows in groups, a rule between two groups in print.
    labels: how many leading columns are names, set left; the rest are figures, set right. data: the full numbers.
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


def to_markdown(table: Table) -> str:
    """Return a GitHub table with padded columns, its title above and its note beneath."""
    rows = [[_markdown_cell(cell) for cell in row] for block in table.blocks for row in block]
    head = [column.replace("|", "\\|") for column in table.columns]
    widths = [max(3, *(len(row[i]) for row in [head, *rows])) for i in range(len(head))]
    rule = ["-" * width if i < table.labels else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = [_markdown_line(row, widths, table.labels) for row in (head, rule, *rows)]
    note = f"\n{table.note}\n" if table.note else ""
    return f"**{table.title}**\n\n" + "\n".join(lines) + "\n" + note


def _markdown_cell(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    return f"**{text}**" if cell.best else text


def _markdown_line(row: list[str], widths: list[int], labels: int) -> str:
    padded = (
        text.ljust(width) if i < labels else text.rjust(width)
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def write_csv(table: Table, path: Path) -> None:
    """Write the numbers behind the table, full precision, an empty field where undefined."""
    table.data.to_csv(path, index=False)
