"""Tables of the details: cost, calibration, classes."""

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.summary import MODEL_COSTS, RUN_COSTS, singles
from raypatch.analysis.show.tables.scores import GFLOPS_NOTE
from raypatch.analysis.show.tables.table import Cell, Row, Table
from raypatch.analysis.wording import UNDEFINED, duration, percent, significant


def costs_table(findings: Findings) -> Table:
    """Return parameters, tokens, GFLOPs, time, speed and memory by dimensions, setting and level."""
    question = findings.question
    cells = singles(findings.cells)
    keys = ["dimensions", *question.setting_keys, "level"]
    names = [name for name in (*MODEL_COSTS, *RUN_COSTS) if f"{name}_mean" in cells]
    ordered = cells.sort_values(["dimensions"], kind="stable")
    groups = ordered.groupby([*keys, "level_rank"], sort=False, dropna=False)
    data = groups[[f"{name}_mean" for name in names]].mean()
    data = data.rename(columns=lambda name: name.removesuffix("_mean")).reset_index()
    places = {key: place for place, key in enumerate(dict.fromkeys(_keys_of(data, keys[:-1])))}
    data["setting"] = [places[key] for key in _keys_of(data, keys[:-1])]
    data = data.sort_values(["setting", "level_rank"]).reset_index(drop=True)
    blocks = []
    for _, block in data.groupby("setting", sort=False):
        blocks.append(tuple(_cost_row(row, keys) for row in block.to_dict("records")))
    headings = ("Weights", "Tokens", "GFLOPs", "no attention", "Training", "Images/s", "GB")
    return Table(
        name="costs",
        title=f"Cost of a trial by {findings.factor.label}",
        columns=("", *(setting.heading for setting in question.settings), findings.factor.heading, *headings),
        blocks=tuple(blocks),
        labels=len(keys),
        note=f"Mean over datasets and seeds. {GFLOPS_NOTE} Images/s in training."
        " GB: peak memory of the device (of the process on a CPU).",
        data=data.drop(columns=["setting", "level_rank"]),
    )


def _keys_of(frame: pd.DataFrame, columns: Sequence[str]) -> list[tuple[object, ...]]:
    return list(frame[list(columns)].itertuples(index=False, name=None))


def _cost_row(row: dict[Hashable, Any], keys: Sequence[str]) -> Row:
    names = [f"{row['dimensions']:.0f}D", *(str(row[key]) for key in keys[1:])]
    tokens = row.get("tokens", float("nan"))
    return (
        *map(Cell, names),
        Cell(UNDEFINED if pd.isna(row["parameters"]) else f"{row['parameters'] / 1e6:.1f} M"),
        Cell(UNDEFINED if pd.isna(tokens) else f"{tokens:.0f}"),
        Cell(significant(row["gflops"])),
        Cell(significant(row["gflops_without_attention"])),
        Cell(duration(row["train_seconds"])),
        Cell(significant(row["images_per_second"])),
        Cell(significant(row["peak_memory_gb"])),
    )


def calibration_table(findings: Findings) -> Table | None:
    """Return expected calibration error and Brier score by series and level; None without predictions."""
    calibration, question = findings.evidence.calibration, findings.question
    if calibration.empty:
        return None
    groups = calibration.groupby(question.cell, sort=False, dropna=False)
    columns: dict[str, pd.Series] = {}
    for name in ("ece", "brier"):
        columns |= {f"{name}_mean": groups[name].mean(), f"{name}_std": groups[name].std()}
    data = pd.DataFrame(columns).reset_index()
    levels = sorted(calibration["level"].unique(), key=findings.factor.rank)
    rows = []
    for key, block in data.groupby(question.series, sort=False, dropna=False):
        names = [str(name) for name in key[2:]]
        for label, name in (("ECE", "ece"), ("Brier", "brier")):
            shown = {}
            for row in block.to_dict("records"):
                shown[row["level"]] = percent(row[f"{name}_mean"], row[f"{name}_std"])
            rows.append((*map(Cell, [*names, label]), *(Cell(shown.get(level, "")) for level in levels)))
    return Table(
        name="calibration",
        title=f"Calibration by {findings.factor.label}",
        columns=("Dataset", *(setting.heading for setting in question.settings), "", *levels),
        blocks=(tuple(rows),),
        labels=2 + len(question.settings),
        note=(
            "Test split, mean ± sample standard deviation over seeds. ECE: expected calibration error in percent,"
            " 15 bins of equal width. Brier: half the squared error of the probabilities, × 100. 0 is best."
        ),
        data=data,
    )


def class_table(findings: Findings) -> Table | None:
    """Return recall and F1 of every class at the baseline and at the chosen level; None without predictions."""
    classes, question = findings.evidence.classes, findings.question
    if classes.empty:
        return None
    groups = classes.groupby([*question.cell, "class"], sort=False, dropna=False)
    means = {name: (name, "mean") for name in ("recall", "precision", "f1")}
    data = groups.agg(images=("images", "first"), **means).reset_index()
    blocks = []
    for _, pick in findings.gains.iterrows():
        own = data[(data[question.series] == pick[question.series]).all(axis=1)]
        first, chosen = own[own["level"] == pick["baseline"]], own[own["level"] == pick["chosen"]]
        if len(first) and len(chosen):
            names = [str(pick[key]) for key in ("dataset_label", *question.setting_keys)]
            blocks.append(tuple(_class_rows(names, first, chosen)))
    settings = [setting.heading for setting in question.settings]
    return Table(
        name="classes",
        title=f"Recall and F1 of each class, baseline → chosen {findings.factor.label}",
        columns=("Dataset", *settings, "Class", "", "Images", findings.factor.heading, "Recall", "F1"),
        blocks=tuple(blocks),
        labels=3 + len(question.settings),
        note="Percent on the test split, mean over seeds. Chosen: by validation.",
        data=data,
    )


def _class_rows(names: Sequence[str], first: pd.DataFrame, chosen: pd.DataFrame) -> list[Row]:
    baseline, level = first["level"].iloc[0], chosen["level"].iloc[0]
    same = baseline == level
    shown = level if same else f"{baseline} → {level}"
    rows = []
    for place, (old, new) in enumerate(zip(first.to_dict("records"), chosen.to_dict("records"), strict=True)):
        changes = []
        for name in ("recall", "f1"):
            changes.append(percent(new[name]) if same else f"{percent(old[name])} → {percent(new[name])}")
        rows.append(tuple(map(Cell, [*names, str(place), str(new["class"]), str(new["images"]), shown, *changes])))
    return rows
