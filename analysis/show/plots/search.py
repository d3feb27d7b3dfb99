"""The plots of a search: score against each searched number, and the history."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from raypatch.analysis.answer.search import search_trials
from raypatch.analysis.frames.load import Results
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import keep_span, style_of
from raypatch.factors import field_heading, field_label
from raypatch.results import SweepRecord

LEAST_SPAN = 0.05
"""Of a score of 0 to 1, or a loss in nats, that an axis shows at least."""


def search_plots(results: Results) -> Iterator[Plot]:
    """Yield the plots of the runs' searches: score against each searched number, and the history."""
    trials = search_trials(results)
    if trials.empty:
        return
    parts = []
    for run, part in trials.groupby("run"):
        parts.append(_against(part, results.records[str(run)]))
    dots = (("ran through", *style_of(1)), ("stopped early", *style_of(2)))
    yield Plot(
        name="search_scores",
        title="Score against what was searched",
        caption="Validation score of each trial's best epoch. Trials that were stopped early had fewer epochs.",
        data=pd.concat(parts, ignore_index=True),
        draw=draw_search_scores,
        lines=dots,
    )
    history = trials[["group", "number", "status", "score", "best", "metric"]]
    yield Plot(
        name="search_history",
        title="History of the search",
        caption="Validation scores in the order of drawing. The line is the best of the trials that ran through.",
        data=history.rename(columns={"group": "panel"}),
        draw=draw_search_history,
        lines=dots,
    )


def _against(trials: pd.DataFrame, record: SweepRecord) -> pd.DataFrame:
    """A panel per group and searched number: status, score, metric, panel, field, value and logarithmic."""
    assert record.search is not None
    # A field with choices has no scale to draw a score against.
    numbers = {name: field for name, field in record.search.settings.fields.items() if field.choices is None}
    parts = []
    for name, field in numbers.items():
        part = trials[["status", "score", "metric"]].assign(panel=trials["group"], field=name)
        if len(numbers) > 1:
            part["panel"] += f", {field_label(name)}"
        part["value"] = [float(drawn[name]) for drawn in trials["drawn"]]
        part["logarithmic"] = field.loguniform is not None
        parts.append(part)
    if not parts:
        return pd.DataFrame(columns=["panel"])
    return pd.concat(parts, ignore_index=True)


def draw_search_scores(axes: Axes, data: pd.DataFrame) -> None:
    """Points of score against value; stopped trials apart."""
    _draw_trials(axes, data, "value")
    if data["logarithmic"].iloc[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        # Without this a range within one power of ten has its minor ticks labelled, one upon the other.
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(field_heading(str(data["field"].iloc[0])))


def draw_search_history(axes: Axes, data: pd.DataFrame) -> None:
    """Points of score by number, and the best so far as a line."""
    _draw_trials(axes, data, "number")
    axes.plot(data["number"], data["best"], color=style_of(1)[0], drawstyle="steps-post", linewidth=1)
    axes.set_xlabel("trial")


def _draw_trials(axes: Axes, data: pd.DataFrame, x: str) -> None:
    for status, place in (("ok", 1), ("pruned", 2)):
        part = data[data["status"] == status]
        colour, marker = style_of(place)
        axes.plot(part[x], part["score"], linestyle="", color=colour, marker=marker)
    keep_span(axes, LEAST_SPAN)
    axes.set_ylabel(str(data["metric"].iloc[0]))
