"""Tables that a reviewer of a clinical paper asks for: the data, areas, decisions at a threshold, patients."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from raypatch.analysis.answer.clinical import Clinical
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.show.tables.table import Row, Table, text_cells
from raypatch.analysis.statistics.curves.thresholds import RATES
from raypatch.analysis.wording import UNDEFINED, score_with_interval
from raypatch.tasks import find_metric

SPLITS = ("train", "val", "test")
NAN = float("nan")
RESAMPLED_NOTE = "By resampling (images, patients where it is known who is who, and seeds), else by the formula named."


def clinical_tables(findings: Findings, clinical: Clinical) -> tuple[Table, ...]:
    """Return the tables that have something to show."""
    names = [*findings.question.setting_keys, "level"]
    headings = (*findings.question.setting_headings, findings.factor.heading)
    tables = [
        data_table(clinical.balance, findings),
        flow_table(findings, clinical),
        areas_table(clinical.areas, names, headings),
        operating_table(clinical.operating, names, headings, clinical.sensitivity),
        patients_table(clinical.units, names, headings),
    ]
    return tuple(table for table in tables if table.row_count)


def data_table(balance: pd.DataFrame, findings: Findings) -> Table:
    """Return the images of each class in each split."""
    # Settings and levels have the same images; the first stands for them.
    distinct = balance.drop_duplicates(["dataset_label", "split", "class"])
    blocks = []
    rows_of_data = []
    for dataset, block in distinct.groupby("dataset_label", sort=False):
        rows = []
        for name, images in block.groupby("class", sort=False):
            by_split = {row["split"]: row for row in images.to_dict("records")}
            rows.append(text_cells([dataset, name, *(_count_with_share(by_split[split]) for split in SPLITS)]))
            rows_of_data.append(images[["dataset_label", "split", "class", "images", "total", "patients"]])
        totals = block.drop_duplicates("split").set_index("split")
        rows.append(text_cells([dataset, "all", *(_count(totals.loc[split, "total"]) for split in SPLITS)]))
        if totals["patients"].notna().any():
            shown = [_count(totals.loc[split, "patients"]) for split in SPLITS]
            rows.append(text_cells([dataset, "patients", *shown]))
        blocks.append(tuple(rows))
    return Table(
        name="data",
        title="The data: images by class and split",
        columns=("Dataset", "Class", "Train", "Val", "Test"),
        blocks=tuple(blocks),
        labels=2,
        note="In brackets: percent of the split's images. Train: as used. Images with several labels count for each.",
        data=pd.concat(rows_of_data, ignore_index=True) if rows_of_data else pd.DataFrame(),
    )


def _count(value: Any) -> str:
    return UNDEFINED if pd.isna(value) else f"{int(value):,}"


def _count_with_share(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["images"]):
        return UNDEFINED
    share = 100 * row["images"] / max(row["total"], 1)
    return f"{int(row['images']):,} ({share:.0f})"


def flow_table(findings: Findings, clinical: Clinical) -> Table:
    """Return how many images and patients there are at each step, from training to a score."""
    rows, numbers = [], []
    balance = clinical.balance.drop_duplicates(["dataset_label", "split"]).set_index(["dataset_label", "split"])
    repeated = findings.results.repeated
    mixed = clinical.units[clinical.units["unit"] == "patient"].drop_duplicates("dataset_label")
    mixed = mixed.set_index("dataset_label")
    for dataset, label in findings.trials[["dataset", "dataset_label"]].drop_duplicates().itertuples(index=False):
        if (label, "test") not in balance.index:
            continue
        fraction = findings.trials.loc[findings.trials["dataset"] == dataset, "train_fraction"].max()
        part = "" if fraction == 1 else f" ({100 * fraction:g} % of the file's)"
        twins = len(repeated.get(dataset, ()))
        steps = [(f"trained on{part}", *balance.loc[(label, "train"), ["total", "patients"]])]
        steps.append(("validated on: epoch, level and threshold", *balance.loc[(label, "val"), ["total", "patients"]]))
        if findings.results.without_twins and twins:
            steps.append(("left out of test: repeat an image of train or val", twins, None))
        steps.append(("tested on, once", *balance.loc[(label, "test"), ["total", "patients"]]))
        if twins and not findings.results.without_twins:
            steps.append(("of these: repeat an image of train or val", twins, None))
        if label in mixed.index:
            steps.append(("no score of their own: patients with several labels", None, mixed.loc[label, "mixed"]))
        for step, images, patients in steps:
            rows.append(text_cells([label, step, _count(images), _count(patients)]))
            numbers.append((label, step, images, patients))
    return Table(
        name="flow",
        title="Flow of images and patients",
        columns=("Dataset", "Step", "Images", "Patients"),
        blocks=(tuple(rows),) if rows else (),
        labels=2,
        data=pd.DataFrame(numbers, columns=["dataset", "step", "images", "patients"]),
    )


def areas_table(areas: pd.DataFrame, names: Sequence[str], headings: Sequence[str]) -> Table:
    """Return the area under the ROC curve and the average precision of every class."""
    blocks = []
    for _, block in areas.groupby("dataset_label", sort=False):
        rows = []
        for row in block.to_dict("records"):
            cells = [row["dataset_label"], *(row[name] for name in names), row["class"]]
            cells += [f"{row['positives']} of {row['images']}"]
            cells += [_shown(row, "auc"), _shown(row, "ap"), row["how"]]
            rows.append(text_cells(cells))
        blocks.append(tuple(rows))
    columns = ("Dataset", *headings, "Class", "Images", "AUC", "Average precision", "Interval of the AUC")
    return Table(
        name="areas",
        title="AUC of every class against the others",
        columns=columns,
        blocks=tuple(blocks),
        labels=2 + len(headings),
        note=(
            "Percent on the test split, mean over seeds, with 95 % interval. DeLong: one seed and no patients known;"
            " else resampled, the seeds by the spread of their scores. Average precision: always resampled."
        ),
        data=areas,
    )


def _shown(row: Mapping[Any, Any], name: str) -> str:
    return score_with_interval(row[name], NAN, row[f"{name}_low"], row[f"{name}_high"])


def operating_table(
    operating: pd.DataFrame, names: Sequence[str], headings: Sequence[str], sensitivity: float | None
) -> Table:
    """Return sensitivity, specificity and predictive values at the thresholds that validation chose."""
    rule = "Youden's: the largest sum of sensitivity and specificity"
    if sensitivity is not None:
        rule = f"the highest with a sensitivity of {100 * sensitivity:g} %"
    blocks = []
    for _, block in operating.groupby("dataset_label", sort=False):
        rows = []
        for row in block.to_dict("records"):
            cells = [row["dataset_label"], *(row[name] for name in names), row["class"], _threshold(row)]
            rows.append(text_cells([*cells, *(_shown(row, rate) for rate in RATES)]))
        blocks.append(tuple(rows))
    columns = ("Dataset", *headings, "Class", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV")
    return Table(
        name="thresholds",
        title="Decisions at a threshold chosen on validation",
        columns=columns,
        blocks=tuple(blocks),
        labels=2 + len(headings),
        note=(
            f"Threshold: {rule} on the validation split, each seed its own; mean and range. Percent on the test split"
            " with 95 % interval: Wilson's of one seed where no patients are known, else resampled as the AUC."
            " PPV and NPV hold for the share of the class in this test split."
        ),
        data=operating,
    )


def _threshold(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["threshold"]):
        return UNDEFINED
    shown = f"{row['threshold']:.3f}"
    if row["threshold_low"] == row["threshold_high"]:
        return shown
    return f"{shown} ({row['threshold_low']:.3f}–{row['threshold_high']:.3f})"


def patients_table(units: pd.DataFrame, names: Sequence[str], headings: Sequence[str]) -> Table:
    """Return the scores per image and per patient."""
    metrics = list(dict.fromkeys(units["metric"]))
    blocks = []
    for _, block in units.groupby("dataset_label", sort=False):
        rows: list[Row] = []
        for key, unit in block.groupby([*names, "unit"], sort=False):
            scores = {row["metric"]: _shown(row, "mean") for row in _as_scores(unit)}
            shown = [scores.get(metric, UNDEFINED) for metric in metrics]
            first = unit.iloc[0]
            rows.append(text_cells([first["dataset_label"], *key, f"{first['count']:,}", *shown]))
        blocks.append(tuple(rows))
    left_out = units.loc[units["unit"] == "patient", "mixed"].sum() > 0 if len(units) else False
    note = "A patient's prediction is the mean probability of its images. Percent, mean over seeds, with 95 % interval;"
    note += " images of one patient are drawn together."
    if left_out:
        note += " Patients whose images have different labels have no score of their own, see the flow."
    return Table(
        name="patients",
        title="Scores per image and per patient",
        columns=("Dataset", *headings, "Per", "Count", *(find_metric(metric).heading for metric in metrics)),
        blocks=tuple(blocks),
        labels=2 + len(headings),
        note=note,
        data=units,
    )


def _as_scores(unit: pd.DataFrame) -> list[dict[Any, Any]]:
    named = unit.rename(columns={"low": "mean_low", "high": "mean_high"})
    return named.to_dict("records")
