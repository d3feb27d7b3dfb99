"""Tables that compare: chosen level against baseline, levels across datasets, ensembles against single models."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from raypatch.analysis.answer.conclusions import Conclusion
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.scores.cells import SINGLE
from raypatch.analysis.show.tables.scores import GFLOPS_NOTE, score_rows
from raypatch.analysis.show.tables.table import Cell, Row, Table, text_cells
from raypatch.analysis.statistics.ranks import ALPHA, RankTest
from raypatch.analysis.wording import (
    UNDEFINED,
    capitalize,
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
    rows = map(_gain_row, conclusion.gains.to_dict("records"))
    over = ", mean over seeds"
    if conclusion.averaged:
        over = f", mean over {len(conclusion.averaged)} settings"
    compared = ("Gain", "95 % interval", "p (Holm)", "Seeds for it", "GFLOPs", "Training time")
    return Table(
        name=f"gains_{file_stem(conclusion.label)}",
        title=f"Gain in {metric.label} over the baseline {factor.label}, {conclusion.label}",
        columns=("Dataset", "Baseline", "Chosen", metric.heading, *compared, "Best on test"),
        blocks=(tuple(rows),),
        labels=3,
        note=(
            f"Chosen: best {metric.label} on validation. Gain in percentage points on the test"
            f" split{over}, with its interval for other images and seeds; bold: p < 0.05 after Holm's"
            " correction over the datasets; no p with one seed. Seeds for it: of each level, to see a"
            " gain of this size in four studies of five; – where the test images are too few for any"
            " number, or one seed says nothing of the next. GFLOPs and training time as multiples of"
            " the baseline's; all – where the baseline itself was chosen. Best on test is not a choice"
            " that could have been made; papers report it."
        ),
        data=conclusion.gains,
    )


def _gain_row(gain: dict[Hashable, Any]) -> Row:
    names = [gain["dataset_label"], gain["baseline"], gain["chosen"]]
    own = text_cells([*names, percent(gain["chosen_score"])])
    # A level beside itself, here and below, would read as a finding: no gain, once the cost.
    best_gain = UNDEFINED if gain["best"] == gain["baseline"] else points(gain["best_gain"])
    best = Cell(f"{best_gain} ({gain['best']})")
    if gain["chosen"] == gain["baseline"]:
        return (*own, *text_cells([UNDEFINED] * 6), best)
    needed = UNDEFINED if pd.isna(gain["needed"]) else f"{gain['needed']:.0f}"
    is_significant = gain["p_holm"] < ALPHA
    return (
        *own,
        Cell(points(gain["gain"]), best=is_significant),
        Cell(interval(gain["low"], gain["high"])),
        Cell(p_value(gain["p_holm"])),
        Cell(needed),
        Cell(times(gain["cost"])),
        Cell(times(gain["seconds"])),
        best,
    )


def ranks_table(findings: Findings, conclusion: Conclusion) -> Table | None:
    """Return the pairwise tests across datasets; None where there are none."""
    ranks = conclusion.ranks
    if ranks is None:
        return None
    levels = capitalize(plural(findings.factor.label))
    return Table(
        name=f"ranks_{file_stem(conclusion.label)}",
        title=f"{levels} across {len(ranks.datasets)} datasets, {conclusion.label}",
        columns=("Pair", "Median gain of the second", "Wilcoxon p", "with Holm", "with Bonferroni", "Nemenyi p"),
        blocks=(_pair_rows(ranks),),
        note=f"{capitalize(findings.metric.label)}, mean over seeds. {_describe_ranks(ranks)}",
        data=ranks.wilcoxon,
    )


def _pair_rows(ranks: RankTest) -> tuple[Row, ...]:
    rows = []
    for pair in ranks.wilcoxon.to_dict("records"):
        first, second = pair["first"], pair["second"]
        nemenyi = ranks.nemenyi.loc[first, second]
        row = (
            Cell(f"{first} against {second}"),
            # The test is of first - second, the table of what the second gains.
            Cell(points(-pair["median"])),
            Cell(p_value(pair["p"])),
            Cell(p_value(pair["p_holm"]), best=pair["p_holm"] < ALPHA),
            Cell(p_value(pair["p_bonferroni"]), best=pair["p_bonferroni"] < ALPHA),
            Cell(p_value(nemenyi), best=nemenyi < ALPHA),
        )
        rows.append(row)
    return tuple(rows)


def _describe_ranks(ranks: RankTest) -> str:
    shown = ", ".join(f"{level}: {rank:.2f}" for level, rank in ranks.ranks.items())
    said = f"Mean ranks, 1 is best: {shown}."
    # Friedman's test is of three levels or more.
    if not pd.isna(ranks.p):
        said = (
            f"Friedman: χ² = {significant(ranks.statistic)}, {p_equals(ranks.p)}. {said}"
            f" Critical difference of two mean ranks at 5 %: {ranks.critical_difference:.2f}."
        )
    if ranks.left_out:
        said += f" Left out, not every level has a score: {', '.join(ranks.left_out)}."
    return f"{said} {say_reach(ranks)}{_say_equal(ranks)}"


def say_reach(ranks: RankTest) -> str:
    """Say which p Wilcoxon's exact test can reach at all on so many datasets, and whether that is enough."""
    datasets, pairs = len(ranks.datasets), len(ranks.wilcoxon)
    said = f"Wilcoxon's test is exact; with {datasets} datasets its smallest p is {significant(ranks.least_p, 2)}"
    if ranks.can_be_significant:
        return f"{said}."
    among = f" of one pair among {pairs}" if pairs > 1 else ""
    return f"{said}, too large to call a difference{among} significant, however clear it is."


def _say_equal(ranks: RankTest) -> str:
    """Say that datasets with equal scores were left out of a pair's test, where there are such."""
    pairs = ranks.wilcoxon[ranks.wilcoxon["equal"] > 0]
    if pairs.empty:
        return ""
    most = int(pairs["equal"].max())
    return (
        f" Datasets on which both score the same are left out of a pair's test: in {len(pairs)} of"
        f" {len(ranks.wilcoxon)} pairs, up to {most} datasets."
    )


def ensembles_table(findings: Findings) -> Table | None:
    """Return every kind of ensemble beside the single level that validation prefers; None without ensembles."""
    if findings.ensembles.empty:
        return None
    question = findings.question
    everything = pd.concat([_chosen_cells(findings), findings.ensembles], ignore_index=True)
    blocks = []
    for _, block in everything.groupby(question.series, sort=False, dropna=False):
        blocks.append(_ensemble_rows(block, findings))
    names = ("Dataset", *question.setting_headings, "Rule", findings.factor.heading)
    keys = [*question.series, "rule", "level"]
    return Table(
        name="ensembles",
        title=f"Ensembles of {plural(findings.factor.label)}",
        columns=(*names, "GFLOPs", *findings.metric_headings),
        blocks=tuple(blocks),
        labels=len(names),
        note=(
            "Percent on the test split, mean ± sample standard deviation over seeds (95 % interval):"
            " the members of an ensemble share a seed, except in the mean over seeds. Weights and"
            f" members come from the validation split. Bold: the best. {GFLOPS_NOTE}"
        ),
        data=everything[[*keys, *findings.ensembles.columns.difference(keys)]],
    )


def _chosen_cells(findings: Findings) -> pd.DataFrame:
    """The cells of the single level that validation prefers in each series."""
    series = findings.question.series
    cells = findings.cells.merge(findings.gains[[*series, "chosen"]], on=series)
    is_chosen = (cells["level"] == cells["chosen"]) & (cells["kind"] == SINGLE)
    return cells[is_chosen].assign(rule=SINGLE)


def _ensemble_rows(block: pd.DataFrame, findings: Findings) -> tuple[Row, ...]:
    # All rows count as single models here, so that only the best of all of them is bold.
    alike = pd.Series(SINGLE, index=block.index)
    scores = score_rows(block, alike, findings.metrics)
    named = ["dataset_label", *findings.question.setting_keys]
    rows: list[Row] = []
    for row, own_scores in zip(block.to_dict("records"), scores, strict=True):
        names = [row[key] for key in named]
        rule = RULE_WORDS.get(row["rule"], "one model, chosen by validation")
        shown = text_cells([*names, rule, row["level"], significant(row["gflops_mean"])])
        rows.append((*shown, *own_scores))
    return tuple(rows)
