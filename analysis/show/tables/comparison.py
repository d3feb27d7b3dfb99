"""Tables that compare: chosen level against baseline, levels across datasets, ensembles against single models."""

import pandas as pd

from raypatch.analysis.answer.cells import SINGLE
from raypatch.analysis.answer.conclusions import Conclusion
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.summary import mark_best
from raypatch.analysis.show.tables.scores import GFLOPS_NOTE, score_cell
from raypatch.analysis.show.tables.table import Cell, Table
from raypatch.analysis.statistics.ranks import ALPHA
from raypatch.analysis.wording import (
    UNDEFINED,
    file_stem,
    interval,
    p_equals,
    p_value,
    percent,
    plural,
    points,
    significant,
    times,
)

RULE_WORDS = {
    "mean": "mean probability",
    "vote": "majority vote",
    "weighted": "weighted mean, weights from validation",
    "greedy": "greedy selection by validation",
    "seeds": "mean over seeds",
}


def gains_table(findings: Findings, conclusion: Conclusion) -> Table:
    """Return what the level that validation prefers gains over the baseline, dataset by dataset."""
    factor, metric = findings.factor, findings.metric
    rows = []
    for row in conclusion.gains.to_dict("records"):
        rows.append(
            (
                Cell(row["dataset_label"]),
                Cell(row["baseline"]),
                Cell(row["chosen"]),
                Cell(percent(row["chosen_score"])),
                Cell(points(row["gain"]), best=row["p_holm"] < ALPHA),
                Cell(interval(row["low"], row["high"])),
                Cell(p_value(row["p_holm"])),
                Cell(UNDEFINED if pd.isna(row["needed"]) else f"{row['needed']:.0f}"),
                Cell(times(row["cost"])),
                Cell(times(row["seconds"])),
                Cell(f"{points(row['best_gain'])} ({row['best']})"),
            )
        )
    scores = ("Gain", "95 % interval", "p (Holm)", "Seeds for it", "GFLOPs", "Training time", "Best on test")
    over = f", mean over {len(conclusion.averaged)} settings" if conclusion.averaged else ", mean over seeds"
    return Table(
        name=f"gains_{file_stem(conclusion.label)}",
        title=f"Gain in {metric.label} over the baseline {factor.label}, {conclusion.label}",
        columns=("Dataset", "Baseline", "Chosen", metric.heading, *scores),
        blocks=(tuple(rows),),
        labels=3,
        note=(
            f"Chosen: best {metric.label} on validation. Gain in percentage points on the test split{over}, with its"
            " interval for other images and seeds; bold: p < 0.05 after Holm's correction over the datasets; no p with"
            " one seed. Seeds for it: of each level, to see a gain of this size in four studies of five; – where the"
            " test images are too few for any number, or one seed says nothing of the next. GFLOPs and training time"
            " as multiples of the baseline's. Best on test is not a choice that could have been made; papers report it."
        ),
        data=conclusion.gains,
    )


def ranks_table(findings: Findings, conclusion: Conclusion) -> Table | None:
    """Return the pairwise tests across datasets; None where there are none."""
    ranks, label = conclusion.ranks, findings.factor.label
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
    left = f" Left out, not every level has a score: {', '.join(ranks.left_out)}." if ranks.left_out else ""
    shown = ", ".join(f"{level}: {rank:.2f}" for level, rank in ranks.ranks.items())
    many = plural(label)
    return Table(
        name=f"ranks_{file_stem(conclusion.label)}",
        title=f"{many[:1].upper()}{many[1:]} across {len(ranks.datasets)} datasets, {conclusion.label}",
        columns=("Pair", "Median gain of the second", "Wilcoxon p", "with Holm", "Nemenyi p"),
        blocks=(tuple(rows),),
        note=(
            f"{findings.metric.label[:1].upper()}{findings.metric.label[1:]}, mean over seeds. Friedman:"
            f" χ² = {significant(ranks.statistic)}, {p_equals(ranks.p)}. Mean ranks, 1 is best: {shown}. Critical"
            f" difference of two mean ranks at 5 %: {ranks.critical_difference:.2f}.{left}"
        ),
        data=ranks.wilcoxon,
    )


def ensembles_table(findings: Findings) -> Table | None:
    """Return every kind of ensemble beside the single level that validation prefers; None without ensembles."""
    if findings.ensembles.empty:
        return None
    question, metrics = findings.question, findings.metrics
    chosen = findings.gains[[*question.series, "chosen"]]
    single = findings.cells.merge(chosen, on=question.series)
    single = single[(single["level"] == single["chosen"]) & (single["kind"] == SINGLE)].assign(rule=SINGLE)
    everything = pd.concat([single, findings.ensembles], ignore_index=True)
    blocks = []
    for _, block in everything.groupby(question.series, sort=False, dropna=False):
        everyone = pd.Series(SINGLE, index=block.index)
        marks = {m.name: mark_best(block[f"test_{m.name}_mean"], everyone, lower=m.lower_is_better) for m in metrics}
        rows = []
        for place, row in enumerate(block.to_dict("records")):
            names = [str(row[key]) for key in ("dataset_label", *question.setting_keys)]
            rule = RULE_WORDS.get(row["rule"], "one model, chosen by validation")
            scores = [score_cell(row, metric, mark=bool(marks[metric.name][place])) for metric in metrics]
            rows.append((*map(Cell, [*names, rule, row["level"]]), Cell(significant(row["gflops_mean"])), *scores))
        blocks.append(tuple(rows))
    keys = [*question.series, "rule", "level"]
    settings = [setting.heading for setting in question.settings]
    headings = [metric.heading for metric in metrics]
    return Table(
        name="ensembles",
        title=f"Ensembles of {plural(findings.factor.label)}",
        columns=("Dataset", *settings, "Rule", findings.factor.heading, "GFLOPs", *headings),
        blocks=tuple(blocks),
        labels=3 + len(settings),
        note=(
            "Percent on the test split, mean ± sample standard deviation over seeds (95 % interval): the members of an"
            " ensemble share a seed, except in the mean over seeds. Weights and members come from the validation"
            f" split. Bold: the best. {GFLOPS_NOTE}"
        ),
        data=everything[[*keys, *findings.ensembles.columns.difference(keys)]],
    )
