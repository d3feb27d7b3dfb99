"""Tables apart from their look: cells with a mark for the best, written as Markdown, LaTeX or CSV."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

UNDEFINED = "–"
LATEX_ROWS = 40

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "–": "--", "≤": r"$\leq$", "≥": r"$\geq$", "<": "$<$", ">": "$>$"},
    **{"²": "$^2$", "α": r"$\alpha$", "χ": r"$\chi$", "−": "$-$", "→": r"$\rightarrow$", "·": r"$\cdot$"},
}


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


def percent(mean: float, spread: float = float("nan")) -> str:
    """Show a score of 0 to 1 in percent, `86.3 ± 1.2`; no spread where it is NaN, a dash where the mean is."""
    if pd.isna(mean):
        return UNDEFINED
    return f"{100 * mean:.1f}" if pd.isna(spread) else f"{100 * mean:.1f} ± {100 * spread:.1f}"


def points(difference: float) -> str:
    """Show a difference of scores in percentage points with its sign, +9.3; one that rounds to nothing has none."""
    if pd.isna(difference):
        return UNDEFINED
    shown = f"{100 * difference:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def interval(low: float, high: float) -> str:
    """Show the bounds of a difference of scores in percentage points: +0.9 to +18.5."""
    return UNDEFINED if pd.isna(low) else f"{points(low)} to {points(high)}"


def duration(seconds: float) -> str:
    """Show a time in the unit that suits it: 42 s, 12 min, 5.3 h."""
    if pd.isna(seconds):
        return UNDEFINED
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{significant(seconds / length, 2)} {unit}"
    return f"{significant(seconds, 2)} s"


def significant(value: float, digits: int = 3) -> str:
    """Show a figure with at least so many significant digits, the integer part whole: 0.0868, 9.08, 9815."""
    if pd.isna(value):
        return UNDEFINED
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def p_value(value: float) -> str:
    """Show a p-value: three decimals, `<0.001` below."""
    if pd.isna(value):
        return UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """Show a p-value within a sentence: p = 0.012, p < 0.001."""
    shown = p_value(value)
    return f"p < {shown[1:]}" if shown.startswith("<") else f"p = {shown}"


def times(value: float) -> str:
    """Show a ratio with three significant digits: 8.37 times, 72400 times."""
    return UNDEFINED if pd.isna(value) else f"{significant(float(f'{value:.3g}'))} times"


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


def to_latex(table: Table) -> str:
    """Return booktabs table environments, each of at most LATEX_ROWS rows, shrunk to the line where they are wider.

    Needs \\usepackage{booktabs} and \\usepackage{graphicx}.
    """
    parts = list(_split_blocks(table.blocks, LATEX_ROWS))
    labels = [""] + [f"-{number}" for number in range(2, len(parts) + 1)]
    titles = [table.title] + [f"{table.title} (continued)"] * (len(parts) - 1)
    return "\n".join(
        _latex_table(replace(table, name=f"{table.name}{label}", title=title, blocks=blocks))
        for label, title, blocks in zip(labels, titles, parts, strict=True)
    )


def _split_blocks(blocks: tuple[tuple[Row, ...], ...], rows: int) -> Iterator[tuple[tuple[Row, ...], ...]]:
    """Fill pages of so many rows with whole blocks; a block that is longer than a page is cut."""
    page: list[tuple[Row, ...]] = []
    for block in blocks:
        for piece in (block[start : start + rows] for start in range(0, len(block), rows)):
            if page and sum(map(len, page)) + len(piece) > rows:
                yield tuple(page)
                page = []
            page.append(piece)
    yield tuple(page)


def _latex_table(table: Table) -> str:
    spec = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    body = "\\midrule\n".join("".join(map(_latex_line, block)) for block in table.blocks)
    note = f"\n\\par\\smallskip\\footnotesize {escape_latex(table.note)}" if table.note else ""
    return (
        "\\begin{table}[htbp]\n\\centering\n"
        f"\\caption{{{escape_latex(table.title)}}}\n\\label{{tab:{table.name}}}\n"
        f"\\sbox0{{\\small\\begin{{tabular}}{{{spec}}}\n\\toprule\n"
        f"{' & '.join(map(escape_latex, table.columns))} \\\\\n\\midrule\n"
        f"{body}\\bottomrule\n\\end{{tabular}}}}%\n"
        "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi"
        f"{note}\n\\end{{table}}\n"
    )


def _latex_line(row: Row) -> str:
    cells = (f"\\textbf{{{escape_latex(c.text)}}}" if c.best else escape_latex(c.text) for c in row)
    return " & ".join(cells) + " \\\\\n"


def escape_latex(text: str) -> str:
    """Return `text` with LaTeX's special characters and the few others we print made safe."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match[0]], text)


def write_csv(table: Table, path: Path) -> None:
    """Write the numbers behind the table, full precision, an empty field where undefined."""
    table.data.to_csv(path, index=False)
