"""Make docs/breast.svg, the README's picture, from a run folder: `python examples/readme_picture.py RUN OUT.svg`."""

import re
import sys
from pathlib import Path

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.show.plots.figure import panel_svg
from raypatch.analysis.show.plots.findings import plot_pareto

STYLE = (
    "<style>svg { color: #1f2328; font-family: sans-serif }"
    " @media (prefers-color-scheme: dark) { svg { color: #e6edf3 } }</style>"
)
"""The colour of text and axes on a light and on a dark page."""


def make_picture(run: Path) -> str:
    """Return the first panel of score against cost as an SVG file of its own."""
    plot = plot_pareto(conclude(load_study(run)))
    name, data = next(iter(plot.panels.items()))
    head, _, body = panel_svg(plot, name, data).partition(">")
    head = re.sub(r'width="\S+" height="\S+"', 'width="460" height="360"', head)
    lines = f"{head}>{STYLE}{body}".splitlines()
    return "\n".join(line.strip() for line in lines if line.strip()) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(make_picture(Path(sys.argv[1])), "utf-8")
