"""Plots of how levels stand over the datasets: boxes, the significance matrix, curves along an ordered factor."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, NullLocator

from raypatch.analysis.answer.conclusions import Conclusion
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.scores.summary import singles
from raypatch.analysis.answer.standings import ALL, average_over_datasets, dataset_scores
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import INK, PALETTE, style_of
from raypatch.analysis.statistics.ranks import ALPHA, RankTest
from raypatch.analysis.wording import file_stem, shorten
from raypatch.config import TrialConfig
from raypatch.factors import Factor, word_value

LEAST_BOXED = 4
"""Datasets from which on a box says more than the points."""

LEAST_POINTS = 3
"""Levels from which on a curve says more than the scores beside each other."""

BETTER, WORSE = PALETTE[1], PALETTE[4]
SHORT, LONG = 9, 16
"""Characters of a level's name beneath a column of the matrix, and beside an axis."""

WIDE_SCALE = 8
"""Times the smallest value from which on an axis of values is logarithmic."""


def standing_plots(findings: Findings) -> Iterator[Plot]:
    """Yield the plots that have something to show."""
    for plot in (plot_boxes(findings), plot_matrix(findings), plot_value_curves(findings)):
        if not plot.data.empty:
            yield plot


def plot_boxes(findings: Findings) -> Plot:
    """The datasets' scores by level as boxes, one panel per conclusion with four datasets or more."""
    question, metric = findings.question, findings.metric
    parts = []
    for conclusion in (*findings.overall, *findings.conclusions):
        scores = dataset_scores(conclusion, question, metric)
        if scores["dataset_label"].nunique() >= LEAST_BOXED:
            parts.append(scores.assign(panel=conclusion.label))
    data = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if len(data):
        data["level_rank"] = data["level"].map(findings.factor.rank)
    return Plot(
        name=f"boxes_by_{file_stem(findings.factor.name)}",
        title="Spread over the datasets",
        caption=(
            f"{findings.metric.heading} of the datasets that have every level, mean over seeds: median, quartiles, and"
            " whiskers to the last dataset within 1.5 times the box. Each point is a dataset."
        ),
        data=data,
        draw=partial(draw_boxes, label=metric.label),
    )


def draw_boxes(axes: Axes, data: pd.DataFrame, *, label: str) -> None:
    """A box per level, the first on top. Columns: level, level_rank, score (0 to 1)."""
    levels = _levels_in_order(data)
    scores = []
    for place, level in enumerate(levels):
        own = 100 * data.loc[data["level"] == level, "score"].to_numpy()
        scores.append(own)
        axes.plot(own, np.full(len(own), place), "o", color=PALETTE[1], markersize=2.5, alpha=0.6, zorder=3)
    line = {"color": INK, "linewidth": 0.8}
    axes.boxplot(
        scores, positions=range(len(levels)), orientation="horizontal", widths=0.6, showfliers=False,
        boxprops=line, whiskerprops=line, capprops=line, medianprops={"color": PALETTE[4], "linewidth": 1.5},
    )  # fmt: skip
    _name_levels_beside(axes, levels)
    axes.set_xlabel(f"{label}, %")


def plot_matrix(findings: Findings) -> Plot:
    """Which level is significantly better than which, of the conclusions that can show it and have three levels."""
    parts = []
    for conclusion in (*findings.overall, *findings.conclusions):
        ranks = conclusion.ranks
        if ranks is not None and ranks.can_be_significant and len(ranks.ranks) > 2:
            parts.append(_matrix_of(conclusion, ranks, findings.factor))
    return Plot(
        name=f"significance_by_{file_stem(findings.factor.name)}",
        title="Which differences are significant?",
        caption=(
            f"{findings.metric.heading} of the row against that of the column: Wilcoxon's exact test over the datasets."
            " ●: p < 0.05 with Bonferroni's correction; ○: with Holm's alone. Pale: not significant."
        ),
        data=pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(),
        draw=draw_matrix,
        lines=(("row is better", BETTER, "s"), ("row is worse", WORSE, "s")),
    )


def _matrix_of(conclusion: Conclusion, ranks: RankTest, factor: Factor) -> pd.DataFrame:
    """Both triangles of the matrix, a row per ordered pair: first, second, gain (median of first - second), p's."""
    pairs = ranks.wilcoxon
    mirrored = pairs.rename(columns={"first": "second", "second": "first"}).assign(median=-pairs["median"])
    both = pd.concat([pairs, mirrored], ignore_index=True).rename(columns={"median": "gain"})
    both["level_rank"] = both["first"].map(factor.rank)
    both["datasets"] = len(ranks.datasets)
    both["panel"] = conclusion.label
    return both.sort_values("level_rank", kind="stable")


def draw_matrix(axes: Axes, data: pd.DataFrame) -> None:
    """A square per pair. Columns: first, second, level_rank (of first), gain, p_holm, p_bonferroni, datasets."""
    levels = list(data["first"].unique())
    colours = np.zeros((len(levels), len(levels), 4))
    for pair in data.to_dict("records"):
        row, column = levels.index(pair["first"]), levels.index(pair["second"])
        is_clear = pair["p_holm"] < ALPHA
        colours[row, column] = to_rgba(BETTER if pair["gain"] > 0 else WORSE, 0.85 if is_clear else 0.15)
        if is_clear:
            mark = "●" if pair["p_bonferroni"] < ALPHA else "○"
            axes.text(column, row, mark, ha="center", va="center", color="white", fontsize=7)
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    _name_levels_beside(axes, levels)
    axes.set_xticks(range(len(levels)), _short_names(levels, SHORT), rotation=60, ha="right",
                    rotation_mode="anchor")  # fmt: skip
    axes.set_xlabel(f"against, on {data['datasets'].iloc[0]} datasets")
    axes.tick_params(length=0)
    axes.grid(visible=False)


def plot_value_curves(findings: Findings) -> Plot:
    """The score along a factor whose levels are numbers, to scale: a line per level of the first setting.

    Learning curves over the share of the training images are this plot.
    """
    factor, question = findings.factor, findings.question
    data = _curve_points(findings)
    lines = []
    if len(data) and question.settings:
        first = question.settings[0]
        for line in sorted(data["line"].unique(), key=first.rank):
            lines.append((first.phrase(line), *style_of(1 + first.rank(line))))
    return Plot(
        name=f"curve_by_{file_stem(factor.name)}",
        title=f"Score along the {factor.label}",
        caption=(
            f"{findings.metric.heading} on the test split, mean over seeds; bars are standard deviations over them. In"
            " the mean over datasets each counts alike, and a bar is the mean of their deviations."
        ),
        data=data,
        draw=partial(draw_value_curves, factor=factor.name, heading=factor.heading, label=findings.metric.label),
        lines=tuple(lines),
    )


def _curve_points(findings: Findings) -> pd.DataFrame:
    """Points of the curves: panel, line (level of the first setting), place, value, mean, std; none for two levels."""
    factor, question, metric = findings.factor, findings.question, findings.metric
    values = _numbers_of(factor)
    cells = singles(findings.cells)
    if cells.loc[cells["level"].isin(values), "level"].nunique() < LEAST_POINTS:
        return pd.DataFrame()
    averages = average_over_datasets(cells, question, metric)
    for name in question.setting_keys:
        averages = averages[averages[name] != ALL]
    over = averages["dimensions"].astype(str) + "D, mean over datasets"
    scores = {f"test_{metric.name}_mean": "mean", f"test_{metric.name}_std": "std"}
    own = cells.rename(columns=scores).assign(panel=cells["dataset_label"])
    columns = ["panel", *question.setting_keys, "level", "mean", "std"]
    points = pd.concat([averages.assign(panel=over)[columns], own[columns]], ignore_index=True)
    points = points[points["level"].isin(values)]
    points["value"] = points["level"].map(values)
    for setting in question.settings[1:]:
        points["panel"] += ", " + points[setting.name].map(setting.phrase)
    points["line"], points["place"] = "", 1
    if question.settings:
        first = question.settings[0]
        points["line"] = points[first.name]
        points["place"] += points[first.name].map(first.rank)
    return points[["panel", "line", "place", "level", "value", "mean", "std"]]


def draw_value_curves(axes: Axes, data: pd.DataFrame, *, factor: str, heading: str, label: str) -> None:
    """A line per setting with deviations. Columns: value (a number), place, mean, std (0 to 1)."""
    for place, line in data.sort_values("value").groupby("place"):
        colour, marker = style_of(int(str(place)))
        # One seed has no deviation, and then a bar of no length.
        reach = 100 * line["std"].fillna(0)
        axes.errorbar(line["value"], 100 * line["mean"], reach, color=colour, marker=marker, capsize=2, elinewidth=0.7)
    values = sorted(data["value"].unique())
    if values[0] > 0 and values[-1] >= WIDE_SCALE * values[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: word_value(factor, float(f"{value:.6g}"))))
    axes.set_xlabel(heading)
    axes.set_ylabel(f"{label}, %")


def _numbers_of(factor: Factor) -> dict[str, float]:
    """The number behind each level of an ordered field; a level without one, as an absent patch size, has none."""
    if not factor.ordered or factor.name not in TrialConfig.model_fields:
        return {}
    numbers = {}
    for level in factor.levels:
        value = level.fields[factor.name]
        if isinstance(value, (int, float)):
            numbers[level.name] = float(value)
    return numbers


def _levels_in_order(data: pd.DataFrame) -> list[str]:
    return list(data.sort_values("level_rank", kind="stable")["level"].unique())


def _name_levels_beside(axes: Axes, levels: Sequence[str]) -> None:
    """Name the levels at the left, the first on top."""
    axes.set_yticks(range(len(levels)), _short_names(levels, LONG))
    axes.set_ylim(len(levels) - 0.5, -0.5)


def _short_names(levels: Sequence[str], length: int) -> list[str]:
    """The names cut to a length, with numbers where two would become one."""
    short = [shorten(level, length) for level in levels]
    if len(set(short)) == len(set(levels)):
        return short
    return [f"{number}. {shorten(level, length - 2)}" for number, level in enumerate(levels, 1)]
