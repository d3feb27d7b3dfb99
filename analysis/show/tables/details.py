"""Tables of the details: cost, calibration, classes."""

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.scores.summary import MODEL_COSTS, RUN_COSTS, singles
from raypatch.analysis.show.tables.scores import GFLOPS_NOTE
from raypatch.analysis.show.tables.table import Row, Table, text_cells
from raypatch.analysis.wording import UNDEFINED, duration, list_names, percent, significant


def costs_table(findings: Findings) -> Table:
    """Return parameters, tokens, GFLOPs, time, speed and memory by dimensions, setting and level."""
    question = findings.question
    settings = ["dimensions", *question.setting_keys]
    data = _mean_costs(singles(findings.cells), settings)
    blocks = []
    for _, block in data.groupby(settings, sort=False, dropna=False):
        rows = (_cost_row(row, question.setting_keys) for row in block.to_dict("records"))
        blocks.append(tuple(rows))
    names = ("Dataset", *question.setting_headings, findings.factor.heading)
    model_costs = ("Weights", "Tokens", "GFLOPs", "no attention")
    return Table(
        name="costs",
        title=f"Cost of a trial by {findings.factor.label}",
        columns=(*names, *model_costs, "Training", "Images/s", "GB"),
        blocks=tuple(blocks),
        labels=len(names),
        note=f"Mean over seeds{_name_means(findings.cells)}. {GFLOPS_NOTE} Images/s in training."
        " GB: peak memory of the device (of the process on a CPU).",
        data=data.drop(columns="level_rank"),
    )


def _name_means(cells: pd.DataFrame) -> str:
    """Which datasets each mean of costs is over, where it is over several."""
    said = []
    for dimensions, block in cells.groupby("dimensions"):
        datasets = list(block["dataset_label"].unique())
        if len(datasets) > 1:
            said.append(f"; {dimensions}D: over {list_names(datasets)}")
    return "".join(said)


def _mean_costs(cells: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """The mean of each cost over the datasets: dimensions, settings, level, level_rank, dataset and the costs.

    dataset: the name of the only one, or how many the mean is over.
    """
    means: dict[str, Any] = {"dataset": ("dataset_label", _name_or_count)}
    for name in (*MODEL_COSTS, *RUN_COSTS):
        if f"{name}_mean" in cells:
            means[name] = (f"{name}_mean", "mean")
    ordered = cells.sort_values("dimensions", kind="stable")
    keys = [*settings, "level", "level_rank"]
    data: pd.DataFrame = ordered.groupby(keys, sort=False, dropna=False).agg(**means).reset_index()
    # A level that the first dataset lacks comes late: put the levels in order within each setting,
    # and leave the settings in the order in which they appear.
    place = data.groupby(list(settings), sort=False, dropna=False).ngroup()
    ordered = data.assign(setting=place).sort_values(["setting", "level_rank"])
    return ordered.drop(columns="setting").reset_index(drop=True)


def _name_or_count(datasets: pd.Series) -> str:
    distinct = datasets.unique()
    return str(distinct[0]) if len(distinct) == 1 else f"mean of {len(distinct)}"


def _cost_row(row: dict[Hashable, Any], setting_keys: Sequence[str]) -> Row:
    dataset = f"{row['dataset']}, {row['dimensions']:.0f}D"
    names = [dataset, *(row[key] for key in setting_keys), row["level"]]
    # Only some models have tokens.
    tokens = row.get("tokens", float("nan"))
    parameters = row["parameters"] / 1e6
    costs = [
        UNDEFINED if pd.isna(parameters) else f"{parameters:.1f} M",
        UNDEFINED if pd.isna(tokens) else f"{tokens:.0f}",
        significant(row["gflops"]),
        significant(row["gflops_without_attention"]),
        duration(row["train_seconds"]),
        significant(row["images_per_second"]),
        significant(row["peak_memory_gb"]),
    ]
    return text_cells([*names, *costs])


def calibration_table(findings: Findings) -> Table | None:
    """Return expected calibration error and Brier score by series and level; None without predictions."""
    calibration, question = findings.evidence.calibration, findings.question
    if calibration.empty:
        return None
    groups = calibration.groupby(question.cell, sort=False, dropna=False)
    errors = {
        "ece_mean": ("ece", "mean"),
        "ece_std": ("ece", "std"),
        "brier_mean": ("brier", "mean"),
        "brier_std": ("brier", "std"),
    }
    data = groups.agg(**errors).reset_index()
    levels = sorted(calibration["level"].unique(), key=findings.factor.rank)
    rows = []
    for _, block in data.groupby(question.series, sort=False, dropna=False):
        first = block.iloc[0]
        names = list(first[["dataset_label", *question.setting_keys]])
        rows.append(text_cells([*names, "ECE", *_by_level(block, "ece", levels)]))
        rows.append(text_cells([*names, "Brier", *_by_level(block, "brier", levels)]))
    return Table(
        name="calibration",
        title=f"Calibration by {findings.factor.label}",
        columns=("Dataset", *question.setting_headings, "", *levels),
        blocks=(tuple(rows),),
        labels=2 + len(question.settings),
        note=(
            "Test split, mean ± sample standard deviation over seeds. ECE: expected calibration error"
            " in percent, 15 bins of equal width. Brier: half the squared error of the probabilities,"
            " × 100. 0 is best."
        ),
        data=data,
    )


def _by_level(block: pd.DataFrame, error: str, levels: Sequence[str]) -> list[str]:
    """The error of each level in words; empty where the series has no such level."""
    shown = {}
    for row in block.to_dict("records"):
        shown[row["level"]] = percent(row[f"{error}_mean"], row[f"{error}_std"])
    return [shown.get(level, "") for level in levels]


def class_table(findings: Findings) -> Table | None:
    """Return recall and F1 of every class at the baseline and at the chosen level; None without predictions."""
    classes, question = findings.evidence.classes, findings.question
    if classes.empty:
        return None
    groups = classes.groupby([*question.cell, "class"], sort=False, dropna=False)
    means = {
        "images": ("images", "first"),
        "recall": ("recall", "mean"),
        "precision": ("precision", "mean"),
        "f1": ("f1", "mean"),
    }
    data = groups.agg(**means).reset_index()
    named = ["dataset_label", *question.setting_keys]
    blocks = []
    for _, gain in findings.gains.iterrows():
        own = data[(data[question.series] == gain[question.series]).all(axis=1)]
        baseline = own[own["level"] == gain["baseline"]]
        chosen = own[own["level"] == gain["chosen"]]
        # The predictions of one of the two may be damaged or lost.
        if len(baseline) and len(chosen):
            blocks.append(_class_rows(list(gain[named]), baseline, chosen))
    names = ("Dataset", *question.setting_headings, "Class", "")
    return Table(
        name="classes",
        title=f"Recall and F1 of each class, baseline → chosen {findings.factor.label}",
        columns=(*names, "Images", findings.factor.heading, "Recall", "F1"),
        blocks=tuple(blocks),
        labels=len(names),
        note="Percent on the test split, mean over seeds. Chosen: by validation.",
        data=data,
    )


def _class_rows(names: Sequence[str], baseline: pd.DataFrame, chosen: pd.DataFrame) -> tuple[Row, ...]:
    first, level = baseline["level"].iloc[0], chosen["level"].iloc[0]
    is_change = first != level
    shown = f"{first} → {level}" if is_change else level
    old_rows, new_rows = baseline.to_dict("records"), chosen.to_dict("records")
    rows = []
    for number, (old, new) in enumerate(zip(old_rows, new_rows, strict=True)):
        recall, f1 = percent(new["recall"]), percent(new["f1"])
        if is_change:
            recall = f"{percent(old['recall'])} → {recall}"
            f1 = f"{percent(old['f1'])} → {f1}"
        rows.append(text_cells([*names, number, new["class"], new["images"], shown, recall, f1]))
    return tuple(rows)
