"""The answer in sentences: which patch size, what it gains and costs, whether the difference is real."""

from dataclasses import dataclass

from raypatch.analysis.answer.findings import Answer, Findings, Setting
from raypatch.analysis.load import HEADLINE
from raypatch.analysis.show.render import p_equals, percent, points, times

PAPER_GAINS = {2: ("12.78 %", "patch 2 against 28"), 3: ("23.78 %", "patch 1 against 14")}
"""Largest gains in balanced accuracy that the paper's abstract states, by dimensions (arXiv 2602.18614)."""


@dataclass(frozen=True)
class Statement:
    """What a report opens with for one setting: the verdict and what supports it."""

    label: str
    verdict: str
    support: tuple[str, ...]


def state_answer(findings: Findings, setting: Setting) -> Statement:
    """Put the answer of one setting into sentences."""
    answer = setting.answer
    if answer is None:
        sizes = ", ".join(map(str, sorted(setting.gains["baseline"].unique(), reverse=True)))
        verdict = f"No answer yet: the datasets have no two patch sizes in common (so far {sizes})."
        return Statement(setting.label, verdict, tuple(_best_gain(setting)))
    if answer.chosen == answer.baseline:
        verdict = f"Keep patch size {answer.chosen}: none of the smaller ones is better on validation."
        return Statement(setting.label, verdict, (*_across(setting), *_best_gain(setting)))
    verdict = (
        f"Patch size {answer.chosen}: {points(answer.gain[0])} points of balanced accuracy against patch size"
        f" {answer.baseline}, {_how_sure(answer)}."
    )
    support = [_gain(answer), *_across(setting), *_frugal(answer), *_ensemble(findings, setting, answer)]
    return Statement(setting.label, verdict, (*support, *_best_gain(setting)))


def _how_sure(answer: Answer) -> str:
    if not answer.tested:
        return "not tested, since no stored predictions could be used"
    if len(answer.datasets) == 1:
        return "significant" if answer.better or answer.worse else "not significant"
    worse = f" and worse in {answer.worse}" if answer.worse else ""
    return f"significantly better in {answer.better}{worse} of {answer.tested} datasets"


def _gain(answer: Answer) -> str:
    _, least, most = answer.gain
    where = f" ({points(least)} to {points(most)})" if len(answer.datasets) > 1 else ""
    return (
        f"It was chosen on validation among {', '.join(map(str, answer.sizes))}. The gain is the mean over the test"
        f" splits of {', '.join(answer.datasets)}{where}; significant means p < 0.05 in a paired bootstrap over images"
        f" and seeds, after Holm's correction. It costs {times(answer.cost)} the GFLOPs and {times(answer.seconds)} the"
        " training time."
    )


def _across(setting: Setting) -> list[str]:
    said = []
    ranks = setting.ranks
    if ranks is not None and ranks.p == ranks.p:
        said.append(
            f"Across {len(ranks.datasets)} datasets the {len(ranks.ranks)} patch sizes"
            f" {'differ' if ranks.p < 0.05 else 'cannot be told apart'} (Friedman, {p_equals(ranks.p)})."
        )
    elif len(setting.gains) == 1:
        said.append("One dataset only: no test across datasets is possible.")
    return said


def _frugal(answer: Answer) -> list[str]:
    if answer.frugal == answer.chosen:
        return []
    return [
        f"If cost matters: patch size {answer.frugal} is within a point of it on validation, and on the test split"
        f" {points(answer.frugal_gain)} points against patch size {answer.baseline} for"
        f" {times(answer.frugal_cost)} the GFLOPs."
    ]


def _ensemble(findings: Findings, setting: Setting, answer: Answer) -> list[str]:
    cells = findings.cells[findings.cells["dataset_label"].isin(answer.datasets)]
    keys = [key for key in setting.gains.columns if key in cells.columns and key in findings.fields]
    for key in keys:
        cells = cells[cells[key] == setting.gains[key].iloc[0]]
    wide = cells.pivot_table(index="dataset_label", columns="patch", values=[f"test_{HEADLINE}_mean", "gflops_mean"])
    score, gflops = wide[f"test_{HEADLINE}_mean"], wide["gflops_mean"]
    names = [str(patch) for patch in score.columns if "+" in str(patch)]
    if len(names) != 1 or score[names[0]].isna().any():
        return []
    (name,) = names
    difference = float((score[name] - score[str(answer.chosen)]).mean())
    cost = float(gflops[name].mean() / gflops[str(answer.chosen)].mean())
    return [
        f"The ensemble of patch sizes {name} (mean probability) scores {points(difference)} points against patch size"
        f" {answer.chosen} alone, for {times(cost)} its GFLOPs."
    ]


def _best_gain(setting: Setting) -> list[str]:
    gains = setting.gains
    known = gains.dropna(subset="best_gain").sort_values("best_gain")
    if known.empty:
        return []
    best = known.iloc[-1]
    said = (
        f"Largest gain of any patch size over the largest one, read from the test split as papers do:"
        f" {points(best['best_gain'])} points ({best['dataset_label']}, patch {best['best']} against"
        f" {best['baseline']}, {percent(best['baseline_score'])} to"
        f" {percent(best['baseline_score'] + best['best_gain'])})."
    )
    figure, sizes = PAPER_GAINS[int(best["dimensions"])]
    return [f"{said} The paper states up to {figure} in {best['dimensions']}D, {sizes} (arXiv 2602.18614)."]
