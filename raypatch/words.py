"""How values are worded for people, wherever they are shown."""

from collections.abc import Iterable, Sequence


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


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: 1 image, 2 images, 2 classes. plural: where an s makes none of the noun."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def agree(count: int, one: str, several: str) -> str:
    """The verb of a counted noun: has for one, have for several or none."""
    return one if count == 1 else several


def first_of(names: Iterable[object], *, most: int = 5) -> str:
    """The first of many names, and how many more there are: a, b, c, d, e and 3 more."""
    every = list(map(str, names))
    text = ", ".join(every[:most])
    return f"{text} and {len(every) - most} more" if len(every) > most else text
