"""The report of an external test of a segmentation: what is said, which tables and pictures."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from raypatch.analysis.report_parts import Report
from raypatch.analysis.show.external import (
    EXTERNAL,
    INTERNAL,
    METHOD_OF_INTERVALS,
    SCORE_COLUMNS,
    Compared,
    absent_classes,
    data_table,
    note_on_seeds,
    notes_on_seen,
    score_rows,
    score_tables,
    seen_table,
    state_drop,
)
from raypatch.analysis.show.gallery import Gallery
from raypatch.analysis.show.sections import Section
from raypatch.analysis.show.tables.table import Row, Table, text_cells
from raypatch.analysis.wording import percent
from raypatch.words import agree, counted


def compose_external_masks(compared: Compared, gallery: Gallery) -> Report:
    """Return the report; gallery: some of the external images with their masks."""
    scores = score_tables(compared)
    if "members" in compared.frames:
        scores.append(members_table(compared))
    return Report(
        title=compared.title,
        lead=compared.lead,
        statements=(state_drop(compared),),
        notes=tuple(_notes(compared)),
        sections=(
            Section("scores", "Scores", tuple(scores)),
            Section("masks", "Masks", galleries=(gallery,)),
            Section("data", "The data", (data_table(compared), seen_table(compared.seen))),
            Section("classes", "Classes", (classes_table(compared),)),
        ),
        method=tuple(_method()),
        # Under a name of its own, as in every report.
        main=replace(scores[0], name="main"),
    )


def _notes(compared: Compared) -> Iterator[str]:
    yield from notes_on_seen(compared)
    absent = absent_classes(compared)
    if absent:
        yield f"No external mask shows {', '.join(absent)}: whatever is predicted to be that counts as wrong."
    empty = {name: int((~(stack.label > 0).any(axis=1)).sum()) for name, stack in compared.stacks.items()}
    if any(empty.values()):
        masks, are = counted(empty[EXTERNAL], "external mask"), agree(empty[EXTERNAL], "is", "are")
        yield (
            f"{masks} of {len(compared.stacks[EXTERNAL].label)} {are} empty, and {empty[INTERNAL]} of"
            f" {len(compared.stacks[INTERNAL].label)} internal ones: such an image scores 1 where nothing is found,"
            " else 0."
        )
    if "members" in compared.frames and np.isnan(_of_mean(compared)):
        yield (
            "The mean of the seeds has no internal score: the run has not kept the probabilities of its pixels, as"
            " `raypatch run --keep-masks` does."
        )
    yield from note_on_seeds(compared)


def _of_mean(compared: Compared) -> float:
    """The internal score of the mean of the seeds, which is the last of the members."""
    return float(compared.frames["members"][INTERNAL].iloc[-1])


def _method() -> Iterator[str]:
    yield (
        "The models and all choices come from the internal training and validation splits; nothing is fitted to the"
        " external data. Classes are matched by name. Masks are measured at the size of their file, whatever the model"
        " sees."
    )
    yield METHOD_OF_INTERVALS
    yield (
        "A pixel takes its most probable class. What belongs to a decision about an image does not apply to masks:"
        " thresholds, ROC curves and calibration."
    )


def members_table(compared: Compared) -> Table:
    """Return the scores of each seed, and of the mean of their probabilities."""
    data = compared.frames["members"]
    blocks: list[tuple[Row, ...]] = []
    for model, block in data.groupby("model", sort=False):
        blocks.append(tuple(score_rows(compared, block, str(model))))
    return Table(
        name="members",
        title="Scores of each seed, and of the mean of their probabilities",
        columns=("Model", "", *SCORE_COLUMNS),
        blocks=tuple(blocks),
        labels=2,
        note="Percent with 95 % interval, by resampled images (patients where known) alone.",
        data=data,
    )


def classes_table(compared: Compared) -> Table:
    """Return how well the pixels of each class are found on both data."""
    data = compared.frames["classes"]
    blocks = []
    for label, block in data.groupby("class", sort=False):
        rows = []
        for row in block.to_dict("records"):
            shares = [percent(row[name]) for name in ("f1", "recall", "precision")]
            rows.append(text_cells([label, row["data"], f"{row['images']:.0f} of {row['total']}", *shares]))
        blocks.append(tuple(rows))
    return Table(
        name="classes",
        title="Pixels of each class",
        columns=("Class", "Data", "Images that show it", "Pooled Dice", "Recall", "Precision"),
        blocks=tuple(blocks),
        labels=2,
        note="Percent of the pixels of all images together, mean over seeds.",
        data=data,
    )
