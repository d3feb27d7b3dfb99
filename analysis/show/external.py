"""The report of an external test: what is said, which tables and curves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from raypatch.analysis.answer.sentences import Statement
from raypatch.analysis.report_parts import Report
from raypatch.analysis.seen import LEARNT, Seen
from raypatch.analysis.show.plots.clinical import draw_rates
from raypatch.analysis.show.plots.draw import draw_reliability
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import style_of
from raypatch.analysis.show.sections import Section
from raypatch.analysis.show.tables.table import Row, Table, text_cells
from raypatch.analysis.statistics.curves.thresholds import RATES
from raypatch.analysis.statistics.stacks import Stack
from raypatch.analysis.wording import UNDEFINED, interval, points, score_with_interval
from raypatch.data.balance import count_classes, count_patients
from raypatch.data.catalog import SPLITS, Split
from raypatch.tasks import Metric
from raypatch.words import agree, counted, first_of

INTERNAL, EXTERNAL = "internal", "external"
NAN = float("nan")


@dataclass(frozen=True)
class Compared:
    """An internal test split and external data, predicted by the same members.

    frames: scores and patients (a row per metric), areas, operating, curves, reliability (with
    `data`, internal or external); everything, as scores, where some external images were learnt from.
    external: all external images with a label; in `stacks` those that were learnt from are left out.
    unlabelled: external images that no label is known of. mixed: patients of each data whose images
    have several labels. seen: external images that repeat the run's own.
    """

    run: str
    source: str
    members: tuple[str, ...]
    dataset: str
    classes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    default_metric: str
    external: Stack
    stacks: Mapping[str, Stack]
    frames: Mapping[str, pd.DataFrame]
    unlabelled: int
    mixed: Mapping[str, int]
    sensitivity: float | None
    seen: Seen

    @property
    def learnt(self) -> int:
        """Scored external images that repeat one of train or val."""
        return self._repeating(*LEARNT)

    @property
    def known(self) -> int:
        """Scored external images that repeat any split of the run."""
        return self._repeating(*SPLITS)

    def _repeating(self, *splits: Split) -> int:
        return int(np.isin(self.external.index, self.seen.rows(*splits)).sum())


def compose_external(compared: Compared) -> Report:
    """Return the report."""
    models = counted(len(compared.members), "trained model")
    main = scores_table(compared, "scores", "Scores on internal and external data")
    tables = [data_table(compared), areas_table(compared), operating_table(compared)]
    first = [main]
    if "everything" in compared.frames:
        title = "Scores with the external images that repeat train or val"
        first.append(scores_table(compared, "everything", title))
    if "patients" in compared.frames:
        first.append(scores_table(compared, "patients", "Scores per patient"))
    return Report(
        title=f"{compared.run} on {compared.source}",
        lead=(
            f"raypatch, external test of {models} ({', '.join(compared.members)}),"
            f" chosen by validation on {compared.dataset}."
        ),
        statements=(_statement(compared),),
        notes=tuple(_notes(compared)),
        sections=(
            Section("scores", "Scores", tuple(first)),
            Section("data", "The data", (tables[0], seen_table(compared.seen))),
            Section("classes", "Classes and decisions", tuple(tables[1:]), tuple(_curves(compared))),
            Section("calibration", "Calibration", (), (_reliability_plot(compared),)),
        ),
        method=tuple(_method(compared)),
        # Under a name of its own, as in every report.
        main=replace(main, name="main"),
    )


def _statement(compared: Compared) -> Statement:
    (metric,) = [metric for metric in compared.metrics if metric.name == compared.default_metric]
    everything = len(compared.external.label)
    if compared.known == everything:
        others = everything - compared.learnt
        counts = f"{compared.learnt} of them repeat train or val, {others} the internal test."
        return Statement(compared.source, "No external test: every image is one of the run's own.", (counts,))
    (row,) = [row for row in compared.frames["scores"].to_dict("records") if row["metric"] == metric.name]
    inside = score_with_interval(row[INTERNAL], NAN, row[f"{INTERNAL}_low"], row[f"{INTERNAL}_high"])
    outside = score_with_interval(row[EXTERNAL], NAN, row[f"{EXTERNAL}_low"], row[f"{EXTERNAL}_high"])
    bounds = interval(row["difference_low"], row["difference_high"])
    if pd.isna(row["difference"]):
        verdict = f"{metric.label} is not defined on both."
    elif row["difference_high"] < 0:
        verdict = f"{metric.label} drops by {points(-row['difference']).lstrip('+')} points on external data."
    elif row["difference_low"] > 0:
        verdict = f"{metric.label} is {points(row['difference'])} points higher on external data."
    else:
        verdict = f"No drop of {metric.label} is shown on external data."
    which = f" on the {everything - compared.learnt} images that repeat none of train or val" if compared.learnt else ""
    support = (
        f"{outside} % external{which}, {inside} % internal.",
        f"Difference {points(row['difference'])} points, 95 % interval {bounds}.",
    )
    return Statement(compared.source, f"{verdict[0].upper()}{verdict[1:]}", support)


def _notes(compared: Compared) -> Iterator[str]:
    yield from _notes_on_seen(compared)
    if compared.unlabelled:
        images, has = counted(compared.unlabelled, "external image"), agree(compared.unlabelled, "has", "have")
        yield f"{images} {has} no label: predicted, and left out of every score."
    counts = count_classes(compared.stacks[EXTERNAL].label, len(compared.classes))
    absent = [name for name, count in zip(compared.classes, counts, strict=False) if not count]
    if absent:
        yield f"No external image of {', '.join(absent)}: what needs all classes, such as the AUC, is not defined."
    for name, mixed in compared.mixed.items():
        if mixed:
            patients, has = counted(mixed, f"{name} patient"), agree(mixed, "has", "have")
            yield f"{patients} {has} images of several labels, and no score of their own."
    if len(compared.members) == 1:
        yield "One seed only: intervals speak of other images, not of other trainings."


def _notes_on_seen(compared: Compared) -> Iterator[str]:
    """Say where the data is none of another source."""
    seen, everything = compared.seen, len(compared.external.label)
    if seen.unknown:
        yield f"Not checked: whether these images repeat those that the models learnt from, since {seen.unknown}."
    if compared.learnt:
        parts = ", ".join(f"{len(seen.rows(split))} of {split}" for split in LEARNT)
        left_out = " They are left out of the answer, the curves and every table but one that says so."
        if compared.learnt == everything:
            left_out = ""
        yield (
            f"{compared.learnt} of {everything} external images repeat images that the models were trained or chosen"
            f" on ({parts}), {seen.equal(*LEARNT)} of them equal in every pixel.{left_out} repeats.csv names them."
        )
    again = len(seen.rows("test"))
    if again:
        repeats = agree(again, "repeats one", "repeat images")
        yield f"{counted(again, 'external image')} {repeats} of the internal test, which is then tested twice."
    known = sorted(set().union(*seen.patients.values()))
    if known:
        found, has = counted(len(known), "external patient"), agree(len(known), "has", "have")
        where = ", ".join(f"{split} {len(patients)}" for split, patients in seen.patients.items())
        yield (
            f"{found} {has} the name of a patient of the run ({where}): {first_of(known)}. The same"
            f" {agree(len(known), 'person', 'people')}, unless both sources number theirs alike."
        )


def _method(compared: Compared) -> Iterator[str]:
    yield (
        "The models, their thresholds and all choices come from the internal training and validation splits; nothing"
        " is fitted to the external data. Classes are matched by name."
    )
    yield (
        "Means over seeds. Intervals are of 95 %, by resampled images (patients where known) and the spread of seeds;"
        " the difference is unpaired, since the images are others."
    )
    rule = "Youden's" if compared.sensitivity is None else f"a sensitivity of {100 * compared.sensitivity:g} %"
    yield f"Thresholds: {rule} on the internal validation split, each seed its own."


def scores_table(compared: Compared, name: str, title: str) -> Table:
    """Return every metric on both data with the difference."""
    data = compared.frames[name]
    headings = {metric.name: metric.label for metric in compared.metrics}
    rows: list[Row] = []
    for row in data.to_dict("records"):
        shown = [_shown(row, INTERNAL), _shown(row, EXTERNAL)]
        gap = row.get("difference", NAN)
        bounds = interval(row.get("difference_low", NAN), row.get("difference_high", NAN))
        rows.append(text_cells([headings[row["metric"]], *shown, points(gap), bounds]))
    return Table(
        name=name,
        title=title,
        columns=("", "Internal", "External", "Difference", "95 %"),
        blocks=(tuple(rows),),
        note="Percent, mean over seeds with 95 % interval; difference: external minus internal, in points."
        " Of calibration error and Brier score less is better.",
        data=data,
    )


def _shown(row: Mapping[Any, Any], name: str) -> str:
    if name not in row:
        return UNDEFINED
    return score_with_interval(row[name], NAN, row[f"{name}_low"], row[f"{name}_high"])


def data_table(compared: Compared) -> Table:
    """Return the images of each class in both data, and of how many patients they are."""
    counts = {}
    for name, stack in compared.stacks.items():
        counts[name] = count_classes(stack.label, len(compared.classes))
    rows, numbers = [], []
    for place, label in enumerate(compared.classes):
        cells: list[object] = [label]
        for name, stack in compared.stacks.items():
            count, total = counts[name][place], len(stack.label)
            cells.append(f"{count:,} ({100 * count / total:.0f})")
            numbers.append((name, label, count, total))
        rows.append(text_cells(cells))
    totals = [f"{len(stack.label):,}" for stack in compared.stacks.values()]
    rows.append(text_cells(["all", *totals]))
    patients = [count_patients(stack.group) for stack in compared.stacks.values()]
    rows.append(text_cells(["patients", *(UNDEFINED if count is None else f"{count:,}" for count in patients)]))
    return Table(
        name="data",
        title="Images by class",
        columns=("Class", "Internal test", "External"),
        blocks=(tuple(rows),),
        note="In brackets: percent.",
        data=pd.DataFrame(numbers, columns=["data", "class", "images", "total"]),
    )


def seen_table(seen: Seen) -> Table:
    """Return how many external images repeat each split of the run, and how many patients are in it."""
    counts = seen.counts()
    rows = []
    for row in counts.to_dict("records"):
        patients = UNDEFINED if pd.isna(row["patients"]) else int(row["patients"])
        images, equal = (UNDEFINED, UNDEFINED) if seen.unknown else (row["images"], row["equal"])
        rows.append(text_cells([row["split"], images, equal, patients]))
    return Table(
        name="seen",
        title="External images that the run has already",
        columns=("Split of the run", "Images that repeat it", "Equal in every pixel", "Patients in it"),
        blocks=(tuple(rows),),
        note="Near-duplicates as `raypatch data check` finds them, at the size that the model sees.",
        data=counts,
    )


def areas_table(compared: Compared) -> Table:
    """Return the AUC of every class on both data."""
    areas = compared.frames["areas"]
    blocks = []
    for label, block in areas.groupby("class", sort=False):
        rows = []
        for row in block.to_dict("records"):
            counted = f"{row['positives']} of {row['images']}"
            rows.append(text_cells([label, row["data"], counted, _shown(row, "auc"), _shown(row, "ap"), row["how"]]))
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
            rows.append(text_cells([label, row["data"], threshold, *(_shown(row, rate) for rate in RATES)]))
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
