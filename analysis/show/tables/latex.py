"""Tables as LaTeX: booktabs, in one or both columns of a page, long and wide ones cut into several."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from raypatch.analysis.show.tables.table import Cell, Row, Table

LATEX_ROWS = 40
COLUMN_POINTS, PAGE_POINTS = 236.0, 483.0
"""Width of a column and of both with the gap between them: A4 with margins of 2 cm, as many journals have it."""
LABEL_POINTS = 100.0
"""Names that are longer than this are broken into lines."""
EM, BOLD, SEPARATION = 9.25, 1.15, 4.0
"""Points: an em at \\small, and the space at either side of a column; how much wider bold is."""

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#{}"},
    # A line may break behind it: names of models are longer than a line has room for.
    "_": r"\_\allowbreak{}",
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "–": "--", "≤": r"$\leq$", "≥": r"$\geq$"},
    **{"<": "$<$", ">": "$>$", "−": "$-$", "→": r"$\rightarrow$", "·": r"$\cdot$"},
    **{"²": "$^2$", "α": r"$\alpha$", "κ": r"$\kappa$", "χ": r"$\chi$", "†": r"$\dagger$"},
}
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def to_latex(table: Table) -> str:
    """Return booktabs table environments, each of at most LATEX_ROWS rows and no wider than a page of two columns.

    A narrow table stands in one column (`table`), a wide one across both (`table*`), one that is wider
    than the page is cut into several, each with the names of the rows. In a document with narrower
    lines they are shrunk. Needs \\usepackage{booktabs} and \\usepackage{graphicx}.
    """
    pieces: list[Table] = []
    # As if every row had as many lines as the one with the longest name.
    lines = max(math.ceil(width / LABEL_POINTS) for width in _natural_points(table)[: table.labels])
    for blocks in _split_blocks(table.blocks, LATEX_ROWS // lines):
        pieces += split_columns(replace(table, blocks=blocks), PAGE_POINTS)
    parts = []
    for number, piece in enumerate(pieces, 1):
        # A label may occur only once in a document, so that each further part has its own.
        if number > 1:
            piece = replace(piece, name=f"{table.name}-{number}", title=f"{table.title} (continued)")
        is_last = number == len(pieces)
        parts.append(_latex_table(piece if is_last else replace(piece, note="")))
    return "\n".join(parts)


def split_columns(table: Table, points: float) -> Iterator[Table]:
    """Yield the table in pieces of at most so many points: the labels with as many further columns as fit.

    A column that is too wide beside the labels has a piece of its own.
    """
    widths = column_points(table)
    labels = sum(widths[: table.labels])
    chosen: list[int] = []
    for column in range(table.labels, len(table.columns)):
        taken = labels + sum(widths[place] for place in chosen)
        if chosen and taken + widths[column] > points:
            yield _pick_columns(table, chosen)
            chosen = []
        chosen.append(column)
    yield _pick_columns(table, chosen)


def _pick_columns(table: Table, chosen: Sequence[int]) -> Table:
    kept = [*range(table.labels), *chosen]
    blocks = []
    for block in table.blocks:
        blocks.append(tuple(tuple(row[place] for place in kept) for row in block))
    return replace(table, columns=tuple(table.columns[place] for place in kept), blocks=tuple(blocks))


def column_points(table: Table) -> list[float]:
    """Return about how wide each column is in print, in points, with the space around it; long names are broken."""
    widths = _natural_points(table)
    labels = [min(width, LABEL_POINTS) for width in widths[: table.labels]]
    return [width + 2 * SEPARATION for width in (*labels, *widths[table.labels :])]


def _natural_points(table: Table) -> list[float]:
    """About how wide what stands in each column is, in one line."""
    widths = [_text_points(column) for column in table.columns]
    for block in table.blocks:
        for row in block:
            for place, cell in enumerate(row):
                own = _text_points(cell.text) * (BOLD if cell.best else 1)
                widths[place] = max(widths[place], own)
    return widths


def _text_points(text: str) -> float:
    """About the width of a text in Computer Modern at \\small."""
    ems = 0.0
    for character in text:
        if character in "ijltfrIs.,:;'|!()[]-/ ":
            ems += 0.36
        elif character in "mwMW±−×→†<>+%":
            ems += 0.83
        else:
            ems += 0.72 if character.isupper() else 0.53
    return ems * EM


def _split_blocks(blocks: tuple[tuple[Row, ...], ...], rows: int) -> Iterator[tuple[tuple[Row, ...], ...]]:
    """Fill pages of so many rows with whole blocks; a block that is longer than a page is cut."""
    page: list[tuple[Row, ...]] = []
    for block in blocks:
        for start in range(0, len(block), rows):
            piece = block[start : start + rows]
            if page and sum(map(len, page)) + len(piece) > rows:
                yield tuple(page)
                page = []
            page.append(piece)
    yield tuple(page)


def _latex_table(table: Table) -> str:
    alignment = ""
    for width in _natural_points(table)[: table.labels]:
        alignment += "l" if width <= LABEL_POINTS else f"p{{{LABEL_POINTS:g}pt}}"
    alignment += "r" * (len(table.columns) - table.labels)
    headings = " & ".join(map(escape_latex, table.columns))
    bodies = []
    for block in table.blocks:
        bodies.append("".join(map(_latex_line, block)))
    body = "\\midrule\n".join(bodies)
    note = f"\n\\par\\smallskip\\raggedright\\footnotesize {escape_latex(table.note)}" if table.note else ""
    kind = "table" if sum(column_points(table)) <= COLUMN_POINTS else "table*"
    # The table is set into a box first, because only a box's width can be compared with the line's.
    return (
        f"\\begin{{{kind}}}[htbp]\n\\centering\\sloppy\n"
        f"\\caption{{{escape_latex(table.title)}}}\n\\label{{tab:{table.name}}}\n"
        f"\\sbox0{{\\small\\setlength{{\\tabcolsep}}{{{SEPARATION:g}pt}}\\begin{{tabular}}{{{alignment}}}\n\\toprule\n"
        f"{headings} \\\\\n\\midrule\n"
        f"{body}\\bottomrule\n\\end{{tabular}}}}%\n"
        "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi"
        f"{note}\n\\end{{{kind}}}\n"
    )


def _latex_line(row: Row) -> str:
    return " & ".join(map(_latex_cell, row)) + " \\\\\n"


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return f"\\textbf{{{text}}}" if cell.best else text


def escape_latex(text: str) -> str:
    """Return `text` with LaTeX's special characters and the few others we print made safe."""
    # All in one pass: replaced one after another, the backslash of one would be escaped by the next.
    return _SPECIAL.sub(lambda match: _LATEX[match[0]], text)
