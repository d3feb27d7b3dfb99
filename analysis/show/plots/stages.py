"""The curves of trainings without labels."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import style_of
from raypatch.analysis.show.tables.stages import stage_frame


def stage_plots(findings: Findings) -> Iterator[Plot]:
    """Yield loss and score of nearest neighbours by epoch, a panel per pretraining; nothing where there is none."""
    metric = findings.metric
    data = stage_frame(findings.results, metric.name)
    if data.empty:
        return
    colours = [style_of(place) for place in (1, 2)]
    yield Plot(
        name="pretraining",
        title="Trainings without labels",
        caption=(
            f"Loss (left) and validation {metric.label} in percent of nearest neighbours in the teacher's features"
            " (right), by epoch. The score is a curve to look at; the last weights are kept."
        ),
        data=data,
        draw=draw_pretraining,
        lines=(("loss", *colours[0]), (f"k-NN {metric.heading}", *colours[1])),
    )


def draw_pretraining(axes: Axes, data: pd.DataFrame) -> None:
    """Loss on the left axis, score in percent on the right one."""
    sides = ((axes, data["loss"]), (axes.twinx(), 100 * data["score"]))
    for place, (side, values) in enumerate(sides, start=1):
        colour, marker = style_of(place)
        side.plot(data["epoch"], values, color=colour, marker=marker, markersize=3)
        side.tick_params(axis="y", colors=colour)
    axes.set_xlabel("epoch")
