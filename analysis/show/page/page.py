"""The report as one HTML page that needs nothing outside itself: no script, no address, no font."""

import base64
import re
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from raypatch.analysis.report_parts import Report
from raypatch.analysis.show.plots.figure import Plot, on_all_cores, panel_svg

FOLDER = Path(__file__).parent

# Markers as matplotlib draws them, in the middle of a box of 32 x 16.
MARKER_PATHS = {
    "o": "M16 3.5A4.5 4.5 0 1 1 16 12.5A4.5 4.5 0 1 1 16 3.5Z",
    "s": "M12 4H20V12H12Z",
    "^": "M16 3L21 12.5H11Z",
    "D": "M16 2.5L21.5 8L16 13.5L10.5 8Z",
    "v": "M16 13L11 3.5H21Z",
    "P": "M14 3H18V6H21V10H18V13H14V10H11V6H14Z",
    "X": "M13 3L16 6L19 3L21 5L18 8L21 11L19 13L16 10L13 13L11 11L14 8L11 5Z",
    "*": "M16 2L17.5 6.5H22L18.5 9.3L19.8 14L16 11.2L12.2 14L13.5 9.3L10 6.5H14.5Z",
}


def render_page(report: Report) -> str:
    """Return the page; everything that comes from files (names, classes, errors) is escaped."""
    panels = _draw_panels(report)

    def panel(plot: Plot, name: str) -> Markup:
        return Markup(panels[plot.name, name])  # noqa: S704  matplotlib escapes the text it writes

    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = _prose
    return environment.get_template("report.html").render(
        report=report,
        markers=MARKER_PATHS,
        css=Markup((FOLDER / "report.css").read_text("utf-8")),  # noqa: S704  our own file
        panel_svg=panel,
        csv_link=_csv_link,
    )


def _prose(text: str) -> Markup:
    """Return a sentence for the page: what stands between backticks, as in Markdown, becomes code."""
    # Escaped first, so that only our own elements are markup.
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def _draw_panels(report: Report) -> dict[tuple[str, str], str]:
    """Draw all panels of the page, as SVG by the names of plot and panel."""
    calls = []
    for plot in report.plots:
        for name, data in plot.panels.items():
            calls.append((plot, name, data))
    drawn = on_all_cores(panel_svg, calls, panels=len(calls))
    panels = {}
    for (plot, name, _), svg in zip(calls, drawn, strict=True):
        panels[plot.name, name] = svg
    return panels


def _csv_link(data: pd.DataFrame) -> str:
    """Return the data as an address that holds them, so that they travel with the page."""
    return "data:text/csv;base64," + base64.b64encode(data.to_csv(index=False).encode()).decode()
