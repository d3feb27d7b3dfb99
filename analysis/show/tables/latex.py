"""Tables as LaTeX: booktabs, shrunk to the line, long ones cut into several."""

import re
from collections.abc import Iterator
from dataclasses import replace

from raypatch.analysis.show.tables.table import Cell, Row, Table

LATEX_ROWS = 40

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "–": "--", "≤": r"$\leq$", "≥": r"$\geq$"},
    **{"<": "$<$", ">": "$>$", "−": "$-$", "→": r"$\rightarrow$", "·": r"$\cdot$"},
    **{"²": "$^2$", "α": r"$\alpha$", "κ": r"$\kappa$", "χ": r"$\chi$", "†": r"$\dagger$"},
}
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def to_latex(table: Table) -> str:
    """Return booktabs table environments, each of at most LATEX_ROWS rows, shrunk to the line where they are wider.

    Needs \\usepackage{booktabs} and \\usepackage{graphicx}.
    """
    parts = []
    for number, blocks in enumerate(_split_blocks(table.blocks, LATEX_ROWS), 1):
        part = replace(table, blocks=blocks)
        # A label may occur only once in a document, so that each further part has its own.
        if number > 1:
            part = replace(part, name=f"{table.name}-{number}", title=f"{table.title} (continued)")
        parts.append(_latex_table(part))
    return "\n".join(parts)


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
    alignment = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    headings = " & ".join(map(escape_latex, table.columns))
    bodies = []
    for block in table.blocks:
        bodies.append("".join(map(_latex_line, block)))
    body = "\\midrule\n".join(bodies)
    note = f"\n\\par\\smallskip\\footnotesize {escape_latex(table.note)}" if table.note else ""
    # The table is set into a box first, because only a box's width can be compared with the line's.
    return (
        "\\begin{table}[htbp]\n\\centering\n"
        f"\\caption{{{escape_latex(table.title)}}}\n\\label{{tab:{table.name}}}\n"
        f"\\sbox0{{\\small\\begin{{tabular}}{{{alignment}}}\n\\toprule\n"
        f"{headings} \\\\\n\\midrule\n"
        f"{body}\\bottomrule\n\\end{{tabular}}}}%\n"
        "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi"
        f"{note}\n\\end{{table}}\n"
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
