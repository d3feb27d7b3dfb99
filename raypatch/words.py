"""How values are worded for people, wherever they are shown."""

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Seconds for people: 42s, 3m 05s, 2h 07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def align_columns(table: Sequence[Sequence[str]], *, left: int | None = None) -> list[str]:
    """Return the lines of a table: its first `left` columns to the left, the others to the right.

    None for all to the left.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            to_left = left is None or number < left
            cells.append(cell.ljust(width) if to_left else cell.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines
