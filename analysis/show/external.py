"""What reports of external tests of classes and of masks share: the answer, notes, tables of scores and data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from raypatch.analysis.answer.sentences import Statement
from raypatch.analysis.external.seen import LEARNT, Seen
from raypatch.analysis.show.tables.table import Row, Table, text_cells
from raypatch.analysis.statistics.stacks import Stack
from raypatch.analysis.wording import UNDEFINED, interval, points, score_with_interval
from raypatch.data.balance import count_classes, count_patients
from raypatch.data.catalog import SPLITS, Split
from raypatch.tasks import Metric
from raypatch.words import agree, counted, first_of

INTERNAL, EXTERNAL = "internal", "external"
NAN = float("nan")

SCORE_COLUMNS = ("Internal", "External", "Difference", "95 %")
METHOD_OF_INTERVALS = (
    "Means over seeds. Intervals are of 95 %, by resampled images (patients where known) and the spread of seeds;"
    " the difference is unpaired, since the images are others."
)


@dataclass(frozen=True)
class Compared:
    """An internal test split and external data, predicted by the same members.

    frames: scores and patients (a row per metric), areas, operating, curves, reliability (with
    `data`, internal or external); everything, as scores, where some external images were learnt from.
    external: all external images with a label; in `stacks` those that were learnt from are left out.
    seen: external images that repeat the run's own. Of classes alone: unlabelled, external images
    that no label is known of; mixed, patients of each data whose images have several labels.

    Of masks, frames are scores, everything, classes and members; classes are without the background.
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
    seen: Seen
    unlabelled: int = 0
    mixed: Mapping[str, int] = field(default_factory=dict)
    sensitivity: float | None = None

    @property
    def title(self) -> str:
        """What the report is called."""
        return f"{self.run} on {self.source}"

    @property
    def lead(self) -> str:
        """Who is tested."""
        models = counted(len(self.members), "trained model")
        return (
            f"raypatch, external test of {models} ({', '.join(self.members)}), chosen by validation on {self.dataset}."
        )

    def images(self, name: str) -> tuple[int, ...]:
        """Return how many images of a data are of each class, or show it in their mask."""
        stack = self.stacks[name]
        # Of masks the label counts pixels.
        labels = (stack.label > 0).astype(np.int64) if stack.probability.ndim == 4 else stack.label
        return count_classes(labels, len(self.classes))

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


def score_tables(compared: Compared, note: str = "") -> list[Table]:
    """Return the main table and, where some external images were learnt from, that with them."""
    tables = [scores_table(compared, "scores", "Scores on internal and external data", note)]
    if "everything" in compared.frames:
        title = "Scores with the external images that repeat train or val"
        tables.append(scores_table(compared, "everything", title, note))
    return tables


def state_drop(compared: Compared) -> Statement:
    """Say whether the score that the answer is about drops on the external data."""
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


def absent_classes(compared: Compared) -> list[str]:
    """Return the classes that no external image has."""
    counts = compared.images(EXTERNAL)
    return [name for name, count in zip(compared.classes, counts, strict=False) if not count]


def note_on_seeds(compared: Compared) -> Iterator[str]:
    """Say where there is one seed only."""
    if len(compared.members) == 1:
        yield "One seed only: intervals speak of other images, not of other trainings."


def notes_on_seen(compared: Compared) -> Iterator[str]:
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


def scores_table(compared: Compared, name: str, title: str, note: str = "") -> Table:
    """Return every metric on both data with the difference."""
    data = compared.frames[name]
    return Table(
        name=name,
        title=title,
        columns=("", *SCORE_COLUMNS),
        blocks=(tuple(score_rows(compared, data)),),
        note=f"Percent, mean over seeds with 95 % interval; difference: external minus internal, in points.{note}",
        data=data,
    )


def score_rows(compared: Compared, data: pd.DataFrame, *labels: str) -> Iterator[Row]:
    """Yield a row of SCORE_COLUMNS for each metric, after the labels and its name."""
    headings = {metric.name: metric.label for metric in compared.metrics}
    for row in data.to_dict("records"):
        both = [shown(row, INTERNAL), shown(row, EXTERNAL)]
        gap = row.get("difference", NAN)
        bounds = interval(row.get("difference_low", NAN), row.get("difference_high", NAN))
        yield text_cells([*labels, headings[row["metric"]], *both, points(gap), bounds])


def shown(row: Mapping[Any, Any], name: str) -> str:
    """A score of a row with its interval, in percent; a dash where there is none."""
    if pd.isna(row.get(name, NAN)):
        return UNDEFINED
    return score_with_interval(row[name], NAN, row[f"{name}_low"], row[f"{name}_high"])


def data_table(compared: Compared) -> Table:
    """Return the images of each class in both data, and of how many patients they are."""
    counts = {name: compared.images(name) for name in compared.stacks}
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
