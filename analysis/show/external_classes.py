"""The report of an external test of classes: what is said, which tables and curves."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from raypatch.analysis.report_parts import Report
from raypatch.analysis.show.external import (
    EXTERNAL,
    INTERNAL,
    METHOD_OF_INTERVALS,
    Compared,
    absent_classes,
    data_table,
    note_on_seeds,
    notes_on_seen,
    score_tables,
    scores_table,
    seen_table,
    shown,
    state_drop,
)
from raypatch.analysis.show.plots.clinical import draw_rates
from raypatch.analysis.show.plots.draw import draw_reliability
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import style_of
from raypatch.analysis.show.sections import Section
from raypatch.analysis.show.tables.table import Table, text_cells
from raypatch.analysis.statistics.curves.thresholds import RATES
from raypatch.analysis.wording import UNDEFINED
from raypatch.words import agree, counted

CALIBRATION_NOTE = " Of calibration error and Brier score less is better."


def compose_external_classes(compared: Compared) -> Report:
    """Return the report."""
    scores = score_tables(compared, CALIBRATION_NOTE)
    if "patients" in compared.frames:
        scores.append(scores_table(compared, "patients", "Scores per patient", CALIBRATION_NOTE))
    decisions = (areas_table(compared), operating_table(compared))
    return Report(
        title=compared.title,
        lead=compared.lead,
        statements=(state_drop(compared),),
        notes=tuple(_notes(compared)),
        sections=(
            Section("scores", "Scores", tuple(scores)),
            Section("data", "The data", (data_table(compared), seen_table(compared.seen))),
            Section("classes", "Classes and decisions", decisions, tuple(_curves(compared))),
            Section("calibration", "Calibration", (), (_reliability_plot(compared),)),
        ),
        method=tuple(_method(compared)),
        # Under a name of its own, as in every report.
        main=replace(scores[0], name="main"),
    )


def _notes(compared: Compared) -> Iterator[str]:
    yield from notes_on_seen(compared)
    if compared.unlabelled:
        images, has = counted(compared.unlabelled, "external image"), agree(compared.unlabelled, "has", "have")
        yield f"{images} {has} no label: predicted, and left out of every score."
    absent = absent_classes(compared)
    if absent:
        yield f"No external image of {', '.join(absent)}: what needs all classes, such as the AUC, is not defined."
    for name, mixed in compared.mixed.items():
        if mixed:
            patients, has = counted(mixed, f"{name} patient"), agree(mixed, "has", "have")
            yield f"{patients} {has} images of several labels, and no score of their own."
    yield from note_on_seeds(compared)


def _method(compared: Compared) -> Iterator[str]:
    yield (
        "The models, their thresholds and all choices come from the internal training and validation splits; nothing"
        " is fitted to the external data. Classes are matched by name."
    )
    yield METHOD_OF_INTERVALS
    rule = "Youden's" if compared.sensitivity is None else f"a sensitivity of {100 * compared.sensitivity:g} %"
    yield f"Thresholds: {rule} on the internal validation split, each seed its own."


def areas_table(compared: Compared) -> Table:
    """Return the AUC of every class on both data."""
    areas = compared.frames["areas"]
    blocks = []
    for label, block in areas.groupby("class", sort=False):
        rows = []
        for row in block.to_dict("records"):
            counted = f"{row['positives']} of {row['images']}"
            rows.append(text_cells([label, row["data"], counted, shown(row, "auc"), shown(row, "ap"), row["how"]]))
        blocks.append(tuple(rows))
    return Table(
        name="areas",
        title="AUC of every class against the others",
        columns=("Class", "Data", "Images", "AUC", "Average precision", "Interval of the AUC"),
        blocks=tuple(blocks),
        labels=2,
        note="Percent, mean over seeds, with 95 % interval.",
        data=areas,
    )


def operating_table(compared: Compared) -> Table:
    """Return the rates on both data at the thresholds that the internal validation chose."""
    operating = compared.frames["operating"]
    blocks = []
    for label, block in operating.groupby("class", sort=False):
        rows = []
        for row in block.to_dict("records"):
            threshold = UNDEFINED if pd.isna(row["threshold"]) else f"{row['threshold']:.3f}"
            rows.append(text_cells([label, row["data"], threshold, *(shown(row, rate) for rate in RATES)]))
        blocks.append(tuple(rows))
    return Table(
        name="thresholds",
        title="Decisions at the threshold of the internal validation",
        columns=("Class", "Data", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV"),
        blocks=tuple(blocks),
        labels=2,
        note="Percent, with 95 % interval. PPV and NPV hold for the share of the class in these data.",
        data=operating,
    )


def _curves(compared: Compared) -> Iterator[Plot]:
    curves = compared.frames["curves"].dropna(subset="mean")
    for kind, title in (("roc", "ROC curves"), ("pr", "Precision and recall")):
        data = curves[curves["kind"] == kind]
        if len(data):
            # A panel for each class, and in it a line for each data.
            yield Plot(
                name=f"curves_{kind}",
                title=title,
                caption="Mean over seeds with 95 % intervals at each point, a panel for each class.",
                data=data.assign(panel=data["class"], **{"class": data["data"]}),
                draw=partial(draw_rates, kind=kind),
            )


def _reliability_plot(compared: Compared) -> Plot:
    data = compared.frames["reliability"]
    places = [INTERNAL, EXTERNAL]
    lines = tuple((name, *style_of(place)) for place, name in enumerate(places))
    return Plot(
        name="reliability",
        title="Can the confidence be trusted?",
        caption="Accuracy by confidence, all seeds, in 15 bins. On the dashed line confidence is right.",
        data=data.assign(panel="reliability", level_rank=data["data"].map(places.index)),
        draw=draw_reliability,
        lines=lines,
    )
