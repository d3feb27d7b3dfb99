"""Tables as LaTeX: booktabs, shrunk to the line, long ones cut into several."""

import re
from collections.abc import Iterator
from dataclasses import replace

from raypatch.analysis.show.tables.table import Row, Table

LATEX_ROWS = 40

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "–": "--", "≤": r"$\leq$", "≥": r"$\geq$", "<": "$<$", ">": "$>$"},
    **{"²": "$^2$", "α": r"$\alpha$", "χ": r"$\chi$", "−": "$-$", "→": r"$\rightarrow$", "·": r"$\cdot$"},
}


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
