"""Tables that compare: chosen against largest patch size, ensembles against single models, sizes across datasets."""

import pandas as pd

from raypatch.analysis.answer.cells import series_keys
from raypatch.analysis.answer.findings import Findings, Setting
from raypatch.analysis.load import METRICS
from raypatch.analysis.show.render import Cell, Table, interval, p_equals, p_value, percent, points, significant, times
from raypatch.analysis.show.tables import GFLOPS_NOTE, mark_best
from raypatch.analysis.statistics.ranks import ALPHA

RULES = {
    "mean": "mean probability",
    "vote": "majority vote",
    "weighted": "weighted mean, weights from validation",
    "greedy": "greedy selection by validation",
    "seeds": "mean over seeds",
}


def gains_table(setting: Setting) -> Table:
    """Return what the patch size that validation prefers gains over the largest one, dataset by dataset."""
    rows = []
    for row in setting.gains.to_dict("records"):
        names = [row["dataset_label"], str(row["baseline"]), str(row["chosen"])]
        rows.append(
            (
                *map(Cell, names),
                Cell(percent(row["chosen_score"])),
                Cell(points(row["gain"]), best=row["p_holm"] < ALPHA),
                Cell(interval(row["low"], row["high"])),
                Cell(p_value(row["p_holm"])),
                Cell(times(row["cost"])),
                Cell(f"{points(row['best_gain'])} (patch {row['best']})"),
            )
        )
    return Table(
        name=f"gains_{_stem(setting.label)}",
        title=f"Gain in balanced accuracy over the largest patch, {setting.label}",
        columns=("Dataset", "Largest", "Chosen", "bACC", "Gain", "95 % interval", "p (Holm)", "GFLOPs", "Best on test"),
        blocks=(tuple(rows),),
        labels=3,
        note=(
            "Chosen: highest balanced accuracy on validation. Gain in percentage points on the test split, mean over"
            " seeds, with paired bootstrap over images and seeds; bold: p < 0.05 after Holm's correction over the"
            " datasets. Best on test is not a choice that could have been made; papers report it."
        ),
        data=setting.gains,
    )


def ranks_table(setting: Setting) -> Table | None:
    """Return the pairwise tests across datasets; None where there are none."""
    ranks = setting.ranks
    if ranks is None:
        return None
    rows = []
    for row in ranks.wilcoxon.to_dict("records"):
        first, second = row["first"], row["second"]
        nemenyi = ranks.nemenyi.loc[first, second]
        rows.append(
            (
                Cell(f"{first} against {second}"),
                Cell(points(-row["median"])),
                Cell(p_value(row["p"])),
                Cell(p_value(row["p_holm"]), best=row["p_holm"] < ALPHA),
                Cell(p_value(nemenyi), best=nemenyi < ALPHA),
            )
        )
    left = f" Left out, not every patch size has a score: {', '.join(ranks.left_out)}." if ranks.left_out else ""
    shown = ", ".join(f"{size}: {rank:.2f}" for size, rank in ranks.ranks.items())
    return Table(
        name=f"ranks_{_stem(setting.label)}",
        title=f"Patch sizes across {len(ranks.datasets)} datasets, {setting.label}",
        columns=("Patch sizes", "Median gain of the second", "Wilcoxon p", "with Holm", "Nemenyi p"),
        blocks=(tuple(rows),),
        note=(
            f"Balanced accuracy, mean over seeds. Friedman: χ² = {significant(ranks.statistic)},"
            f" {p_equals(ranks.p)}. Mean ranks, 1 is best: {shown}. Critical difference of two mean ranks at 5 %:"
            f" {ranks.critical_difference:.2f}.{left}"
        ),
        data=ranks.wilcoxon,
    )


def ensembles_table(findings: Findings) -> Table | None:
    """Return every kind of ensemble beside the single patch size that validation prefers; None without ensembles."""
    if findings.ensembles.empty:
        return None
    keys = series_keys(findings.fields)
    chosen = pd.concat([setting.gains for setting in findings.settings])[[*keys, "chosen"]]
    single = findings.cells.merge(chosen, left_on=[*keys, "patch_size"], right_on=[*keys, "chosen"])
    everything = pd.concat([single.assign(rule="single"), findings.ensembles], ignore_index=True)
    blocks = []
    for _, block in everything.groupby(keys, sort=True, dropna=False):
        marks = {name: mark_best(block[f"test_{name}_mean"], block["rule"] != "") for name in METRICS}
        rows = []
        for place, row in enumerate(block.to_dict("records")):
            names = [str(row[name]) for name in keys[2:]]
            figures = [
                Cell(percent(row[f"test_{name}_mean"], row[f"test_{name}_std"]), bool(marks[name][place]))
                for name in METRICS
            ]
            rule = RULES.get(row["rule"], "one model, chosen by validation")
            rows.append((*map(Cell, [*names, rule, row["patch"]]), Cell(significant(row["gflops_mean"])), *figures))
        blocks.append(tuple(rows))
    return Table(
        name="ensembles",
        title="Ensembles",
        columns=("Dataset", *keys[3:], "Rule", "Patch", "GFLOPs", *METRICS.values()),
        blocks=tuple(blocks),
        labels=len(keys),
        note=(
            "Percent on the test split, mean ± sample standard deviation over seeds: the members of an ensemble share a"
            " seed, except in the mean over seeds. Weights and members come from the validation split. Bold: the"
            f" best. {GFLOPS_NOTE}"
        ),
        data=everything[[*keys, "rule", "patch", *findings.ensembles.columns.difference([*keys, "rule", "patch"])]],
    )


def _stem(label: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in label.lower())
