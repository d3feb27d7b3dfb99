"""Colours and markers of the plots, and the axes that several of them share."""

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from raypatch.analysis.wording import shorten, significant

INK = "#1b1c1d"
"""Of all text and lines that are no data; a page in dark colours replaces it."""

# After Okabe and Ito, with grey for the first level; each has a contrast of 3:1 on white and on the dark page.
PALETTE = ("#7d828a", "#2f86bd", "#008f68", "#b87700", "#d55e00", "#a95ab5")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
ROOM = 26
"""Characters of all level names together that fit beneath a panel in one line."""


def style_of(place: int) -> tuple[str, str]:
    """Return colour and marker of the nth line; both differ, so that a print without colour can be read."""
    return PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]


def level_axis(axes: Axes, data: pd.DataFrame, heading: str) -> list[str]:
    """Give the levels equal steps in their order, the first at the left; return them. Names that are long are tilted.

    Columns: level, level_rank.
    """
    levels = list(data.sort_values("level_rank", kind="stable")["level"].unique())
    names = [shorten(level, 20) for level in levels]
    axes.set_xticks(range(len(levels)), names)
    if len("  ".join([*names, ""])) > ROOM:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.4, len(levels) - 0.6)
    axes.set_xlabel(heading)
    return levels


def keep_span(axes: Axes, least: float) -> None:
    """Widen a vertical axis that spans less than `least`, about its middle: small differences stay small."""
    low, high = axes.get_ylim()
    missing = least - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)


def keep_ratio(axes: Axes, least: float) -> None:
    """Do the same for a logarithmic axis whose ends have a ratio of less than `least`."""
    low, high = axes.get_ylim()
    missing = least / (high / low)
    if missing > 1:
        axes.set_ylim(low / missing**0.5, high * missing**0.5)


def plain_numbers(axis: Axis) -> None:
    """Write a logarithmic axis in plain numbers, which take a tenth of the time of powers of ten as formulas."""
    low, high = axis.get_data_interval()
    # Over two powers of ten or more, ticks at 2 and 5 would stand too close.
    within_power = (1, 2, 5) if high < 100 * low else (1,)
    axis.set_major_locator(LogLocator(subs=within_power, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    axis.set_minor_locator(NullLocator())


def wrap_title(title: str, width: int = 40) -> str:
    """Return a panel's title in lines that fit above it."""
    return textwrap.fill(title, width)
