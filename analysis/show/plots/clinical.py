"""The curves that a reviewer of a clinical paper asks for: ROC, precision and recall, net benefit."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes

from raypatch.analysis.answer.clinical import Clinical
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.findings import name_panels
from raypatch.analysis.show.plots.style import INK, style_of
from raypatch.analysis.wording import shorten

MOST_BANDS = 3
"""More bands in a panel would hide each other."""
MOST_NAMES = 6
"""More names would hide the curves."""


def clinical_plots(findings: Findings, clinical: Clinical) -> Iterator[Plot]:
    """Yield the curves of the level that validation prefers, where there are predictions."""
    bands = f"Bands, where a panel has at most {MOST_BANDS} classes: 95 % intervals at each point; all are in the data."
    curves = clinical.curves
    for kind, title, said in (
        ("roc", "ROC curves", "True against false positive rate, mean over seeds at each false positive rate."),
        ("pr", "Precision and recall", "Precision of the strictest threshold that reaches a recall, mean over seeds."),
    ):
        data = curves[curves["kind"] == kind]
        if len(data):
            yield _plot(kind, title, f"{said} Each class against the others. {bands}", data, findings)
    if len(clinical.decision):
        yield _plot(
            "decision",
            "Net benefit",
            "What acting on the prediction gains per 100 images, against the probability from which one would act."
            f" Dotted: acting on everybody; 0: on nobody. {bands}",
            clinical.decision,
            findings,
        )


def _plot(kind: str, title: str, caption: str, data: pd.DataFrame, findings: Findings) -> Plot:
    levels = data["level"].map(findings.factor.phrase)
    draw: Callable[[Axes, pd.DataFrame], None] = draw_decision
    if kind != "decision":
        draw = partial(draw_rates, kind=kind)
    return Plot(
        name=f"curves_{kind}",
        title=title,
        caption=caption,
        data=data.assign(panel=name_panels(data, findings) + ", " + levels),
        draw=draw,
    )


def draw_rates(axes: Axes, data: pd.DataFrame, *, kind: str) -> None:
    """ROC or precision-recall curves. Columns: class, x, mean, low, high (0 to 1)."""
    if kind == "roc":
        axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle="--", alpha=0.6)
    _draw_classes(axes, data, "x", 100)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-2, 102)
    if kind == "roc":
        axes.set_xlabel("false positive rate, %")
        axes.set_ylabel("true positive rate, %")
    else:
        axes.set_xlabel("recall, %")
        axes.set_ylabel("precision, %")
    _name_classes(axes, "lower right" if kind == "roc" else "upper right")


def draw_decision(axes: Axes, data: pd.DataFrame) -> None:
    """Net benefit by threshold probability. Columns: class, act_from, mean, low, high, everybody."""
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.6)
    _draw_classes(axes, data, "act_from", 100)
    highest = 0.0
    for place, (_, line) in enumerate(data.groupby("class", sort=False)):
        colour, _ = style_of(place + 1)
        axes.plot(100 * line["act_from"], 100 * line["everybody"], color=colour, linestyle=":", linewidth=1)
        highest = max(highest, float(line[["mean", "everybody"]].max().max()))
    # Acting on everybody falls without end; what matters lies near 0.
    axes.set_ylim(-40 * highest - 1, 115 * highest + 1)
    axes.set_xlim(0, 100)
    axes.set_xlabel("act from a probability of, %")
    axes.set_ylabel("net benefit, per 100")
    _name_classes(axes, "upper right")


def _draw_classes(axes: Axes, data: pd.DataFrame, x: str, scale: float) -> None:
    classes = list(data.groupby("class", sort=False))
    for place, (name, line) in enumerate(classes):
        colour, marker = style_of(place + 1)
        if len(classes) <= MOST_BANDS:
            low, high = scale * line["low"], scale * line["high"]
            axes.fill_between(scale * line[x], low, high, color=colour, alpha=0.15, linewidth=0)
        # A few markers along a line tell it apart in print without colour.
        axes.plot(
            scale * line[x],
            scale * line["mean"],
            color=colour,
            marker=marker,
            markevery=(7 * place % 20, 20),
            label=shorten(str(name), 18),
        )


Corner = Literal["lower right", "upper right"]


def _name_classes(axes: Axes, place: Corner) -> None:
    handles, labels = axes.get_legend_handles_labels()
    # One class alone is the question of the whole dataset.
    if 1 <= len(labels) <= MOST_NAMES:
        axes.legend(handles, labels, loc=place, fontsize=6, frameon=False)
