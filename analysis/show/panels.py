"""How one panel of each plot is drawn: a data frame in, marks on an axes out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from raypatch.analysis.show.render import significant

INK = "#1b1c1d"
"""Of all text and lines that are no data; a page in dark colours replaces it."""

# After Okabe and Ito, with grey for the largest patch; each has a contrast of 3:1 on white and on the dark page.
PALETTE = ("#7d828a", "#2f86bd", "#008f68", "#b87700", "#d55e00", "#a95ab5")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
METRIC_LABELS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC"}


def style_of(place: int) -> tuple[str, str]:
    """Return colour and marker of the nth line; both differ, so that a print without colour can be read."""
    return PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]


def draw_scores(axes: Axes, data: pd.DataFrame) -> None:
    """Scores against patch size with 95 % intervals. Columns: metric, patch_size, mean, low, high (0 to 1)."""
    sizes = _patch_axis(axes, data["patch_size"])
    for place, (metric, line) in enumerate(data.groupby("metric", sort=False)):
        colour, marker = style_of(place + 1)
        x = np.array([sizes.index(size) for size in line["patch_size"]]) + 0.08 * (place - 1)
        mean = 100 * line["mean"].to_numpy()
        reach = np.abs(100 * line[["low", "high"]].to_numpy().T - mean)
        axes.errorbar(x, mean, reach, color=colour, marker=marker, capsize=2, label=METRIC_LABELS[str(metric)])
    axes.set_ylabel("test score, %")


def draw_pareto(axes: Axes, data: pd.DataFrame) -> None:
    """Score against cost, the Pareto front as a line. Columns: patch, gflops, score (0 to 1), ensemble, front."""
    for ensemble, points in data.groupby("ensemble"):
        colour, marker = style_of(4) if ensemble else style_of(1)
        axes.plot(points["gflops"], 100 * points["score"], marker, color=colour, linestyle="none")
    front = data[data["front"]].sort_values("gflops")
    axes.step(front["gflops"], 100 * front["score"], where="post", color=INK, linewidth=0.8, alpha=0.6, zorder=1)
    for patch, gflops, score in data[["patch", "gflops", "score"]].itertuples(index=False):
        axes.annotate(patch, (gflops, 100 * score), (0, 5), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.margins(x=0.12, y=0.15)
    axes.set_xlabel("GFLOPs per image")
    axes.set_ylabel("balanced accuracy, %")


def draw_curves(axes: Axes, data: pd.DataFrame) -> None:
    """Validation loss by epoch: mean and range over seeds. Columns: patch_size, epoch, mean, low, high."""
    for place, size in enumerate(sorted(data["patch_size"].unique(), reverse=True)):
        line = data[data["patch_size"] == size]
        colour, marker = style_of(place)
        every = max(1, len(line) // 6)
        axes.fill_between(line["epoch"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(line["epoch"], line["mean"], color=colour, marker=marker, markevery=every, label=f"patch {size}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss")


def draw_reliability(axes: Axes, data: pd.DataFrame) -> None:
    """Accuracy against confidence; the diagonal is perfect. Columns: patch_size, confidence, accuracy (0 to 1)."""
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle="--", alpha=0.6)
    for place, size in enumerate(sorted(data["patch_size"].unique(), reverse=True)):
        line = data[data["patch_size"] == size]
        colour, marker = style_of(place)
        axes.plot(100 * line["confidence"], 100 * line["accuracy"], color=colour, marker=marker, label=f"patch {size}")
    axes.set_xlim(100 * data["confidence"].min() - 3, 103)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("accuracy, %")


def draw_confusion(axes: Axes, data: pd.DataFrame) -> None:
    """Share of each true class (row) that was taken for each class. Columns: true, predicted, share (0 to 1)."""
    names = list(dict.fromkeys(data["true"]))
    matrix = 100 * data["share"].to_numpy().reshape(len(names), len(names))
    axes.pcolormesh(matrix, cmap="cividis", vmin=0, vmax=100, edgecolors="face", linewidth=0.1)
    if len(names) <= 11:
        for row, column in np.ndindex(matrix.shape):
            share = matrix[row, column]
            colour = "black" if share > 55 else "white"
            if not np.isnan(share):
                axes.text(column + 0.5, row + 0.5, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=6)
    short = [_shorten(name) if len(names) == 2 else str(place) for place, name in enumerate(names)]
    shown = short if len(names) <= 20 else []
    axes.set_xticks(np.arange(len(shown)) + 0.5, shown)
    axes.set_yticks(np.arange(len(shown)) + 0.5, shown, rotation=90 if len(names) == 2 else 0, va="center")
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")


def draw_ranks(axes: Axes, data: pd.DataFrame) -> None:
    """Critical-difference diagram. Columns: first, second (patch sizes), rank_first, p: every ordered pair."""
    from scikit_posthocs import critical_difference_diagram

    ranks = data.groupby("first", sort=False)["rank_first"].first()
    ranks.index = ranks.index.map("patch {}".format)
    p = data.pivot(index="first", columns="second", values="p")
    p.index = p.columns = p.index.map("patch {}".format)
    colours = dict.fromkeys(ranks.index, INK)
    critical_difference_diagram(
        ranks, p.loc[ranks.index, ranks.index], ax=axes, color_palette=colours, label_props={"size": 8},
        crossbar_props={"color": PALETTE[4], "linewidth": 3}, elbow_props={"linewidth": 0.8},
        marker_props={"s": 12}, text_h_margin=0.05,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.set_xlabel("mean rank (1 is best)")
    axes.xaxis.set_label_position("top")


def draw_costs(axes: Axes, data: pd.DataFrame) -> None:
    """One cost against patch size, a line per dataset. Columns: dataset, patch_size, value, unit."""
    sizes = _patch_axis(axes, data["patch_size"])
    for _, line in data.groupby("dataset", sort=False):
        x = [sizes.index(size) for size in line["patch_size"]]
        axes.plot(x, line["value"], color=PALETTE[1], marker="o", markersize=3, linewidth=0.8, alpha=0.7)
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    axes.set_ylabel(data["unit"].iloc[0])


def _patch_axis(axes: Axes, patch_sizes: Sequence[int] | pd.Series) -> list[int]:
    """Give the patch sizes equal steps, the largest, which is the cheapest, at the left; return them in that order."""
    sizes = sorted({int(size) for size in patch_sizes}, reverse=True)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    axes.set_xlabel("patch size")
    return sizes


def _plain_numbers(axis: Axis) -> None:
    """Write a logarithmic axis in plain numbers, which take a tenth of the time of powers of ten as formulas."""
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    axis.set_minor_locator(NullLocator())


def _shorten(name: str, length: int = 12) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
