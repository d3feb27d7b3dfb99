"""Tables of the details: cost, calibration, classes, chosen hyperparameters, what is missing."""

from collections.abc import Sequence

import pandas as pd

from raypatch.analysis.answer.cells import factors, series_keys
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.show.render import Cell, Row, Table, duration, percent, significant
from raypatch.analysis.show.tables import GFLOPS_NOTE


def costs_table(findings: Findings) -> Table:
    """Return parameters, tokens, GFLOPs, time, speed and memory by dimensions and patch size."""
    cells = findings.cells[findings.cells["patch_size"] > 0]
    names = ["parameters", "tokens", "gflops", "gflops_without_attention"]
    names += ["train_seconds", "images_per_second", "peak_memory_gb"]
    named = factors(findings.fields)
    data = cells.groupby(["dimensions", *named, "patch_size"], dropna=False)[[f"{name}_mean" for name in names]].mean()
    data = data.rename(columns=lambda name: name.removesuffix("_mean")).reset_index()
    data = data.sort_values(["dimensions", *named, "patch_size"], ascending=[True] * (1 + len(named)) + [False])
    blocks = [
        tuple(
            (
                *map(Cell, [f"{row['dimensions']:.0f}D", *(str(row[name]) for name in named), str(row["patch_size"])]),
                Cell(f"{row['parameters'] / 1e6:.1f} M"),
                Cell(f"{row['tokens']:.0f}"),
                *(Cell(significant(row[name])) for name in ("gflops", "gflops_without_attention")),
                Cell(duration(row["train_seconds"])),
                *(Cell(significant(row[name])) for name in ("images_per_second", "peak_memory_gb")),
            )
            for row in block.to_dict("records")
        )
        for _, block in data.groupby(["dimensions", *named], dropna=False)
    ]
    return Table(
        name="costs",
        title="Cost of a trial by patch size",
        columns=("", *named, "Patch", "Weights", "Tokens", "GFLOPs", "no attention", "Training", "Images/s", "GB"),
        blocks=tuple(blocks),
        labels=2 + len(named),
        note=f"Mean over datasets and seeds. {GFLOPS_NOTE} Images/s in training."
        " GB: peak memory of the device (of the process on a CPU).",
        data=data,
    )


def calibration_table(findings: Findings) -> Table | None:
    """Return expected calibration error and Brier score by dataset and patch size; None without predictions."""
    calibration = findings.evidence.calibration
    if calibration.empty:
        return None
    keys = series_keys(findings.fields)
    groups = calibration.groupby([*keys, "patch_size"], dropna=False)
    data = pd.concat(
        {f"{name}_{part}": groups[name].agg(part) for name in ("ece", "brier") for part in ("mean", "std")}, axis=1
    ).reset_index()
    sizes = sorted(calibration["patch_size"].unique(), reverse=True)
    rows = []
    for key, block in data.groupby(keys, dropna=False):
        names = [str(name) for name in key[2:]]
        for label, name in (("ECE", "ece"), ("Brier", "brier")):
            records = block.to_dict("records")
            shown = {row["patch_size"]: percent(row[f"{name}_mean"], row[f"{name}_std"]) for row in records}
            rows.append((*map(Cell, [*names, label]), *(Cell(shown.get(size, "")) for size in sizes)))
    return Table(
        name="calibration",
        title="Calibration by patch size",
        columns=("Dataset", *keys[3:], "", *map(str, sizes)),
        blocks=(tuple(rows),),
        labels=len(keys) - 1,
        note=(
            "Test split, mean ± sample standard deviation over seeds. ECE: expected calibration error in percent,"
            " 15 bins of equal width. Brier: half the squared error of the probabilities, × 100. 0 is best."
        ),
        data=data,
    )


def class_table(findings: Findings) -> Table | None:
    """Return recall and F1 of every class at the largest patch size and the chosen one; None without predictions."""
    classes = findings.evidence.classes
    if classes.empty:
        return None
    keys = series_keys(findings.fields)
    figures = ["recall", "precision", "f1"]
    data = classes.groupby([*keys, "patch_size", "class"], sort=False, dropna=False).agg(
        images=("images", "first"), **{name: (name, "mean") for name in figures}
    )
    data = data.reset_index()
    gains = pd.concat([setting.gains for setting in findings.settings])
    blocks = []
    for _, pick in gains.iterrows():
        own = data[(data[keys] == pick[keys]).all(axis=1)]
        first, chosen = (own[own["patch_size"] == pick[name]] for name in ("baseline", "chosen"))
        if len(first) and len(chosen):
            blocks.append(tuple(_class_rows([str(pick[name]) for name in keys[2:]], first, chosen)))
    return Table(
        name="classes",
        title="Recall and F1 of each class, largest patch → chosen patch",
        columns=("Dataset", *keys[3:], "Class", "", "Images", "Patch", "Recall", "F1"),
        blocks=tuple(blocks),
        labels=len(keys),
        note="Percent on the test split, mean over seeds. Chosen: by validation.",
        data=data,
    )


def _class_rows(names: Sequence[str], first: pd.DataFrame, chosen: pd.DataFrame) -> list[Row]:
    sizes = f"{first['patch_size'].iloc[0]} → {chosen['patch_size'].iloc[0]}"
    rows = []
    for place, (old, new) in enumerate(zip(first.to_dict("records"), chosen.to_dict("records"), strict=True)):
        changes = [f"{percent(old[name])} → {percent(new[name])}" for name in ("recall", "f1")]
        rows.append(tuple(map(Cell, [*names, str(place), str(new["class"]), str(new["images"]), sizes, *changes])))
    return rows


def choices_table(findings: Findings) -> Table | None:
    """Return the best configuration per series and patch size, where hyperparameters were tuned; else None."""
    if findings.recipes.empty:
        return None
    keys = series_keys(findings.fields)
    tuned = [name for name in findings.fields if name not in factors(findings.fields)]
    tried = findings.recipes.groupby([*keys, "patch_size"], dropna=False).size().rename("tried").reset_index()
    first = findings.trials.drop_duplicates([*keys, "patch_size"])[[*keys, "patch_size", "selection", *tuned]]
    first = first.loc[:, ~first.columns.duplicated()]
    cells = findings.cells.drop(columns=tuned, errors="ignore")
    data = cells.merge(first, on=[*keys, "patch_size"]).merge(tried, on=[*keys, "patch_size"])
    rows = [
        (
            *map(Cell, [str(row[name]) for name in keys[2:]]),
            Cell(str(row["patch_size"])),
            *(Cell(f"{row[name]:g}" if isinstance(row[name], float) else str(row[name])) for name in tuned),
            *(Cell(str(row[name])) for name in ("tried", "seeds")),
            *(Cell(percent(row[f"{split}_auc_mean"], row[f"{split}_auc_std"])) for split in ("val", "test")),
        )
        for row in data.to_dict("records")
    ]
    return Table(
        name="choices",
        title="Best configuration per dataset and patch size",
        columns=("Dataset", *keys[3:], "Patch", *tuned, "Tried", "Seeds", "Validation AUC", "Test AUC"),
        blocks=(tuple(rows),),
        labels=len(keys) - 1,
        note="Chosen by the validation figure that the trials name in `selection`, among those with the most seeds.",
        data=data,
    )


def missing_table(findings: Findings) -> Table | None:
    """Return the planned trials without a result, a row per dataset, patch size and state; None where none is."""
    missing = findings.study.missing
    if missing.empty:
        return None
    groups = missing.groupby(["run", "dataset_label", "patch_size", "state"], sort=False)["seed"]
    data = groups.agg(lambda seeds: ", ".join(map(str, sorted(seeds)))).rename("seeds").reset_index()
    return Table(
        name="missing",
        title=f"{len(missing)} planned trials without a result",
        columns=("Run", "Dataset", "Patch", "State", "Seeds"),
        blocks=(tuple(tuple(Cell(str(value)) for value in row) for row in data.itertuples(index=False)),),
        labels=5,
        data=missing,
    )
