"""How one panel of each plot is drawn: a data frame in, marks on an axes out."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from raypatch.analysis.answer.scores.cells import ENSEMBLE
from raypatch.analysis.show.plots.style import (
    INK,
    PALETTE,
    keep_ratio,
    keep_span,
    level_axis,
    plain_numbers,
    style_of,
)
from raypatch.analysis.wording import shorten

SHORT, LONG = 6, 14
"""Characters of a name that stand above a point, and beyond which a name is cut."""
LEAST_POINTS = 5.0
"""Points of a score that an axis shows at least: less would make a finding of rounding."""
LEAST_RATIO = 2.0
"""Greatest over least cost that an axis shows at least."""
ABOVE_POINT: dict[str, Any] = {"xytext": (0, 5), "ha": "center"}
LEFT_OF_POINT: dict[str, Any] = {"xytext": (-3, 3), "ha": "right"}
"""Beside the bar of its interval, which stands where the name would be."""


def draw_scores(axes: Axes, data: pd.DataFrame, *, heading: str, joined: bool) -> None:
    """Scores against the level with 95 % intervals; joined: by lines, where levels are steps along a scale.

    Columns: metric, level, level_rank, mean, low, high (0 to 1).
    """
    levels = pd.Index(level_axis(axes, data, heading))
    linestyle = "-" if joined else "none"
    for place, (_, line) in enumerate(data.groupby("metric", sort=False)):
        colour, marker = style_of(place + 1)
        # A little beside each other, so that the bars of two metrics can be told apart.
        x = levels.get_indexer(pd.Index(line["level"])) + 0.08 * (place - 1)
        mean = 100 * line["mean"].to_numpy()
        reach = np.abs(100 * line[["low", "high"]].to_numpy().T - mean)
        axes.errorbar(x, mean, reach, color=colour, marker=marker, capsize=2, linestyle=linestyle)
    keep_span(axes, LEAST_POINTS)
    axes.set_ylabel("test score, %")


def draw_pareto(axes: Axes, data: pd.DataFrame, *, cost: str, unit: str, label: str) -> None:
    """Score against cost, the Pareto front as a line.

    Columns: level, kind, the cost, score, low, high (0 to 1; NaN where there is no interval), front.
    """
    for kind, points in data.groupby("kind"):
        colour, marker = style_of(4) if kind == ENSEMBLE else style_of(1)
        score = 100 * points["score"].to_numpy()
        reach = np.abs(100 * points[["low", "high"]].to_numpy(float).T - score)
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none"}
        axes.errorbar(points[cost], score, reach, capsize=2, elinewidth=0.8, **style)
    front = data[data["front"]].sort_values(cost)
    axes.step(front[cost], 100 * front["score"], where="post", color=INK, linewidth=0.8, alpha=0.6, zorder=1)
    long_names = data.loc[data["kind"] != ENSEMBLE, "level"].str.len().max() > SHORT
    for point in data.to_dict("records"):
        at = (point[cost], 100 * point["score"])
        place = ABOVE_POINT if point["kind"] == ENSEMBLE else LEFT_OF_POINT
        if long_names:
            dearer = data.loc[data[cost] > point[cost], "score"]
            place = _beside_point(point["score"], dearer, data["score"])
        axes.annotate(_point_name(point), at, textcoords="offset points", fontsize=7, **place)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.margins(x=0.12, y=0.15)
    keep_span(axes, LEAST_POINTS)
    if long_names:
        # Names stand to the right of their points, and the last one needs room too.
        low, high = np.log(axes.get_xlim())
        axes.set_xlim(right=np.exp(high + 0.4 * (high - low)))
    axes.set_xlabel(unit)
    axes.set_ylabel(f"{label}, %")


def _point_name(point: dict[Hashable, Any]) -> str:
    level = str(point["level"])
    if point["kind"] == ENSEMBLE and len(level) > LONG:
        return "ensemble"
    return shorten(level, LONG)


def _beside_point(score: float, to_right: pd.Series, scores: pd.Series) -> dict[str, Any]:
    """Where a long name stands: to the right, lower where another point of about this height would be in the way.

    to_right: the scores of the points on that side. scores: of all points.
    """
    next_above = to_right[to_right >= score].min()
    is_near = next_above - score < 0.1 * (scores.max() - scores.min())
    return {"xytext": (4, -8) if is_near else (4, 3)}


def draw_curves(axes: Axes, data: pd.DataFrame) -> None:
    """Validation loss by epoch: mean and range over seeds. Columns: level_rank, epoch, mean, low, high."""
    for rank, line in data.groupby("level_rank"):
        colour, marker = style_of(int(str(rank)))
        # Some six markers along a line tell it apart; one at each epoch would hide it.
        every = max(1, len(line) // 6)
        axes.fill_between(line["epoch"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(line["epoch"], line["mean"], color=colour, marker=marker, markevery=every)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss")


def draw_reliability(axes: Axes, data: pd.DataFrame) -> None:
    """Accuracy against confidence; the diagonal is perfect. Columns: level_rank, confidence, accuracy (0 to 1)."""
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle="--", alpha=0.6)
    for rank, line in data.groupby("level_rank"):
        colour, marker = style_of(int(str(rank)))
        axes.plot(100 * line["confidence"], 100 * line["accuracy"], color=colour, marker=marker)
    axes.set_xlim(100 * data["confidence"].min() - 3, 103)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("accuracy, %")


def draw_confusion(axes: Axes, data: pd.DataFrame) -> None:
    """Share of each true class (row) that was taken for each class. Columns: true, predicted, share (0 to 1)."""
    names = list(data["true"].unique())
    matrix = 100 * data["share"].to_numpy().reshape(len(names), len(names))
    # Edges of the squares' own colour: without them a PDF shows fine white lines in between.
    axes.pcolormesh(matrix, cmap="cividis", vmin=0, vmax=100, edgecolors="face", linewidth=0.1)
    if len(names) <= 11:
        _write_shares(axes, matrix)
    _name_classes(axes, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")


def _write_shares(axes: Axes, matrix: NDArray[np.float64]) -> None:
    """Write each share into its square; a class without any image has none."""
    for (row, column), share in np.ndenumerate(matrix):
        if not np.isnan(share):
            colour = "black" if share > 55 else "white"
            middle = (column + 0.5, row + 0.5)
            axes.text(*middle, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=6)


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    """Two classes have room for their names, up to twenty for the numbers of the table of classes, more for nothing."""
    shown: list[str] = []
    rotation = 0
    if len(names) == 2:
        shown = [shorten(name) for name in names]
        rotation = 90
    elif len(names) <= 20:
        shown = list(map(str, range(len(names))))
    middles = np.arange(len(shown)) + 0.5
    axes.set_xticks(middles, shown)
    axes.set_yticks(middles, shown, rotation=rotation, va="center")


def draw_ranks(axes: Axes, data: pd.DataFrame) -> None:
    """Critical-difference diagram. Columns: first, second (levels), label, rank_first, p: every ordered pair."""
    # Here, because it takes seconds to load.
    from scikit_posthocs import critical_difference_diagram

    known = data.drop_duplicates("first").set_index("first")
    words = known["label"].map(lambda label: shorten(label, LONG))
    # Levels whose names begin alike would become one when they are cut; a number tells them apart.
    if not words.is_unique:
        numbers = pd.Series(range(1, len(words) + 1), index=words.index)
        words = numbers.astype(str) + ". " + words
    shown = words.to_dict()
    ranks = known["rank_first"].rename(index=shown)
    p = data.pivot(index="first", columns="second", values="p").rename(index=shown, columns=shown)
    colours = dict.fromkeys(ranks.index, INK)
    critical_difference_diagram(
        ranks, p.loc[ranks.index, ranks.index], ax=axes, color_palette=colours, label_props={"size": 8},
        crossbar_props={"color": PALETTE[4], "linewidth": 3}, elbow_props={"linewidth": 0.8},
        marker_props={"s": 12}, text_h_margin=0.05,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.set_xlabel("mean rank (1 is best)")
    axes.xaxis.set_label_position("top")


def draw_costs(axes: Axes, data: pd.DataFrame, *, heading: str, joined: bool) -> None:
    """One cost against the level, a line or points per dataset. Columns: place, level, level_rank, value, unit."""
    levels = pd.Index(level_axis(axes, data, heading))
    style: dict[str, Any] = {"markersize": 3, "linewidth": 0.8, "linestyle": "-" if joined else "none"}
    for place, line in data.groupby("place"):
        colour, marker = style_of(int(str(place)))
        x = levels.get_indexer(pd.Index(line["level"]))
        axes.plot(x, line["value"], color=colour, marker=marker, **style)
    axes.set_yscale("log")
    keep_ratio(axes, LEAST_RATIO)
    plain_numbers(axes.yaxis)
    axes.set_ylabel(data["unit"].iloc[0])
