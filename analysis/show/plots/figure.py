"""A plot is a data frame, cut into panels, and the way a panel is drawn; here it becomes files and page elements."""

import contextlib
import html
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import joblib
import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raypatch.analysis.show.plots.style import INK, wrap_title
from raypatch.machine.cores import available_cores
from raypatch.machine.environment import OWN_ENVIRONMENT, changed_environment

FILE_FORMATS = ("svg", "pdf", "png")
PANEL_INCHES = (3.2, 2.5)
LEGEND_INCHES = 0.4
CHARACTERS = 55
"""How many fit above a panel in print."""
MOST_PANELS = 40
DATE_KEYS = {"svg": "Date", "pdf": "CreationDate"}
WORTH_PROCESSES = 24
"""Panels whose drawing takes longer than starting the processes that would share it."""

Drawn = TypeVar("Drawn")

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "savefig.dpi": 150,
    "grid.color": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    # Text stays text, which a page can recolour and a reader can search: in SVG by the page's font,
    # in PDF as TrueType, which publishers ask for.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    # Names of levels and datasets may hold a dollar sign, which is no formula.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Plot:
    """A plot: `data` with a column `panel`, drawn panel by panel. caption: what is shown, for people and readers.

    lines: label, colour and marker of each line, for a legend. columns: panels side by side in
    print.
    """

    name: str
    title: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[Axes, pd.DataFrame], None]
    lines: tuple[tuple[str, str, str], ...] = ()
    columns: int = 4

    @property
    def panels(self) -> dict[str, pd.DataFrame]:
        """The data of each panel, at most MOST_PANELS."""
        found = {}
        for name, group in itertools.islice(self.data.groupby("panel", sort=False), MOST_PANELS):
            found[str(name)] = group
        return found


@contextlib.contextmanager
def own_style(changes: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Draw as raypatch does, whatever the user's matplotlibrc or notebook has set."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | dict(changes or {}))
        yield


def draw_plot(plot: Plot) -> Figure:
    """Draw all panels of a plot into one figure, for print."""
    panels = plot.panels
    columns = min(plot.columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = PANEL_INCHES
    with own_style():
        figure = Figure((width * columns, height * rows + LEGEND_INCHES), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, (name, data) in zip(grid, panels.items(), strict=False):
            plot.draw(axes, data)
            axes.set_title(wrap_title(name))
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if plot.lines:
            _add_legend(figure, plot, columns)
        # The layout takes most of the time: find it once here, and not again for each format.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _add_legend(figure: Figure, plot: Plot, columns: int) -> None:
    """Put one legend above all panels, which are so many side by side."""
    handles = []
    for label, colour, marker in plot.lines:
        handles.append(Line2D([], [], color=colour, marker=marker, label=label))
    entries = _columns_of(plot, columns)
    figure.legend(handles=handles, loc="outside upper center", ncols=entries, frameon=False)


def _columns_of(plot: Plot, panels: int) -> int:
    """How many entries of the legend fit side by side above so many panels."""
    longest = max(len(label) for label, _, _ in plot.lines)
    return max(1, min(len(plot.lines), panels * CHARACTERS // (longest + 6)))


def on_all_cores(draw: Callable[..., Drawn], calls: Sequence[tuple[Any, ...]], *, panels: int) -> list[Drawn]:
    """Return draw(*call) of each call, in order; spread over processes where there are many panels to draw."""
    jobs = available_cores() if panels >= WORTH_PROCESSES else 1
    tasks = [joblib.delayed(draw)(*call) for call in calls]
    with changed_environment(OWN_ENVIRONMENT):
        drawn: list[Drawn] = joblib.Parallel(n_jobs=jobs)(tasks)
    return drawn


def save_plot(plot: Plot, folder: Path, formats: Sequence[str] = FILE_FORMATS) -> list[Path]:
    """Write the plot in each format and its data as CSV; return the files."""
    data = folder / f"{plot.name}.csv"
    plot.data.to_csv(data, index=False)
    figure = draw_plot(plot)
    written = [data]
    # With a fixed salt for the ids and without a date, the same data give the same bytes.
    with own_style({"svg.hashsalt": plot.name}):
        for suffix in formats:
            path = folder / f"{plot.name}.{suffix}"
            undated = {DATE_KEYS[suffix]: None} if suffix in DATE_KEYS else {}
            figure.savefig(path, format=suffix, metadata=undated)
            written.append(path)
    return written


def panel_svg(plot: Plot, name: str, data: pd.DataFrame) -> str:
    """Return one panel as an SVG element for a page: it takes the page's text colour, its ids are the panel's own."""
    with own_style({"svg.hashsalt": f"{plot.name} {name}"}):
        figure = Figure(PANEL_INCHES, layout="constrained")
        plot.draw(figure.subplots(), data)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    # An XML declaration may not stand within a page.
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # matplotlib names parts alike in every drawing, and ids must differ within a page.
    prefix = re.sub(r"\W+", "-", f"{plot.name}-{name}")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    # A style would hold for the whole page.
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)
    label = html.escape(f"{plot.title}: {name}")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
