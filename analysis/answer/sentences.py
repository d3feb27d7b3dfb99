"""The answer in sentences: which level, what it gains and costs, whether the difference is real."""

import math
from dataclasses import dataclass

from raypatch.analysis.answer.conclusions import Answer, Conclusion
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.majority import say_majority
from raypatch.analysis.answer.scores.cells import ENSEMBLE
from raypatch.analysis.wording import list_names, p_equals, percent, plural, points, start_sentence, times
from raypatch.factors import Factor

SAME = 0.005
"""Ratios of cost this near to 1 are called the same."""


@dataclass(frozen=True)
class Statement:
    """What a report opens with for one setting: the verdict and what supports it. answer: the numbers of both."""

    label: str
    verdict: str
    support: tuple[str, ...]
    answer: Answer | None = None


def state_answers(findings: Findings) -> list[Statement]:
    """Return a statement over the settings, where there are several, and one for each."""
    conclusions = (*findings.overall, *findings.conclusions)
    levels = {level for conclusion in conclusions for level in conclusion.cells["level"]}
    if len(levels) == 1 and len(conclusions) > 1:
        # Under each setting the same would be said.
        return [Statement("all settings", _no_answer(findings.factor, conclusions[0]), ())]
    return [state_answer(findings, conclusion) for conclusion in conclusions]


def state_answer(findings: Findings, conclusion: Conclusion) -> Statement:
    """Put one conclusion into sentences."""
    factor, answer = findings.factor, conclusion.answer
    averaged = _averaged(conclusion)
    best = _best_gain(findings, conclusion)
    if answer is None:
        return Statement(conclusion.label, _no_answer(factor, conclusion), (*averaged, *best))
    across = _across(factor, conclusion)
    left_out = []
    if answer.left_out:
        left_out.append(f"Left out of this answer: {', '.join(answer.left_out)}.")
    if answer.chosen == answer.baseline:
        verdict = f"Keep {factor.phrase(answer.chosen)}: no other {factor.label} is better on validation."
        return Statement(conclusion.label, verdict, (*averaged, *left_out, *across, *best), answer)
    verdict = _verdict(findings, answer)
    # A report prints the first two of these beside the verdict.
    support = [_gain(factor, answer), *_seeds_needed(answer), *averaged, *left_out, *across]
    support += _majority(findings, conclusion, answer)
    support += _frugal(factor, answer)
    support += _ensemble(findings, conclusion, answer)
    return Statement(conclusion.label, verdict, (*support, *best), answer)


def _no_answer(factor: Factor, conclusion: Conclusion) -> str:
    levels = sorted(conclusion.cells["level"].unique(), key=factor.rank)
    shown = ", ".join(map(factor.phrase, levels))
    if len(levels) == 1:
        return f"No answer yet: {shown} is the only {factor.label} so far, there is nothing to compare."
    return f"No answer yet: the datasets have no two levels of {factor.label} in common (so far {shown})."


def _verdict(findings: Findings, answer: Answer) -> str:
    """The chosen level against the baseline, with a number of points only where it is shown, or could not be tested."""
    factor, metric = findings.factor, findings.metric.label
    if answer.tested and not answer.better and not answer.worse:
        where = "" if len(answer.datasets) == 1 else f" in any of {answer.tested} datasets"
        pair = f"{factor.phrase(answer.chosen)} and {factor.phrase(answer.baseline)}"
        return f"No difference shown{where}: {pair} cannot be told apart by {metric}."
    return (
        f"{start_sentence(factor, answer.chosen)}: {points(answer.gain[0])} points of"
        f" {metric} against {factor.phrase(answer.baseline)}, {how_sure(answer)}."
    )


def how_sure(answer: Answer) -> str:
    """Say how sure a difference is that some dataset shows, or that nothing tested."""
    if not answer.tested and not answer.unclear:
        return "not tested, since no stored predictions could be used"
    if not answer.tested:
        return "for the models of one seed and not tested: another seed may say otherwise"
    if len(answer.datasets) == 1:
        return "significant"
    worse = f" and worse in {answer.worse}" if answer.worse else ""
    return f"significantly better in {answer.better}{worse} of {answer.tested} datasets"


def _seeds_needed(answer: Answer) -> list[str]:
    """With how many seeds the gains that are not significant would be, were they as large as they seem."""
    one_seed: list[str] = []
    known: list[str] = []
    never: list[str] = []
    for name, seeds, needed in answer.unclear:
        if seeds == 1:
            one_seed.append(name)
        elif math.isnan(needed):
            never.append(name)
        else:
            # The first says of what there would be so many.
            unit = "" if known else " seeds of each level"
            known.append(f"{needed:.0f}{unit} on {name}")
    said = []
    if one_seed:
        said.append(f"One seed says nothing of the next: run at least three ({list_names(one_seed)}).")
    if known:
        said.append(f"Four of five studies would show a gain of this size with about {', '.join(known)}.")
    if never:
        said.append(f"No number of seeds would show so small a gain on so few test images: {list_names(never)}.")
    return said


def _averaged(conclusion: Conclusion) -> list[str]:
    if not conclusion.averaged:
        return []
    return [
        f"Every score here is the mean over {len(conclusion.averaged)} settings, each counted alike:"
        f" {'; '.join(conclusion.averaged)}."
    ]


def _gain(factor: Factor, answer: Answer) -> str:
    _, least, most = answer.gain
    datasets = list_names(answer.datasets)
    where = f"on the test split of {datasets}"
    if len(answer.datasets) > 1:
        where = f"the mean over the test splits of {datasets} ({points(least)} to {points(most)})"
    return (
        f"{start_sentence(factor, answer.chosen)} was chosen on validation, by the mean over seeds, among"
        f" {list_names(answer.levels)}. Against {factor.phrase(answer.baseline)} it has"
        f" {points(answer.gain[0])} points, {where};"
        " a difference is shown, or significant, where p < 0.05 for other images and other seeds, after Holm's"
        f" correction. {_cost(factor, answer)}"
    )


def _cost(factor: Factor, answer: Answer) -> str:
    """What the chosen level costs, and on which datasets: training time hangs on them."""
    gflops = "the same GFLOPs" if abs(answer.cost - 1) < SAME else f"{times(answer.cost)} the GFLOPs"
    if math.isnan(answer.seconds):
        return f"It costs {gflops}; {factor.phrase(answer.baseline)} takes no training, whose time could be compared."
    return f"It costs {gflops} and {times(answer.seconds)} the training time on {list_names(answer.datasets)}."


def _majority(findings: Findings, conclusion: Conclusion, answer: Answer) -> list[str]:
    """Say where one of the two levels of the answer is no better than the most frequent class."""
    cells = findings.cells
    is_asked = cells["level"].isin([answer.chosen, answer.baseline]) & cells["dataset_label"].isin(answer.datasets)
    for name, level in conclusion.setting.items():
        is_asked &= cells[name] == level
    return list(say_majority(cells[is_asked], findings.factor, findings.question.settings))


def _across(factor: Factor, conclusion: Conclusion) -> list[str]:
    ranks = conclusion.ranks
    # Friedman's test needs three levels and scores that are not all alike.
    if ranks is not None and not math.isnan(ranks.p):
        verb = "differ" if ranks.p < 0.05 else "cannot be told apart"
        levels = f"{len(ranks.ranks)} {plural(factor.label)}"
        return [f"Across {len(ranks.datasets)} datasets the {levels} {verb} (Friedman, {p_equals(ranks.p)})."]
    if len(conclusion.gains) == 1:
        return ["One dataset only: no test across datasets is possible."]
    return []


def _frugal(factor: Factor, answer: Answer) -> list[str]:
    if answer.frugal == answer.chosen:
        return []
    if abs(answer.frugal_cost - 1) < SAME and abs(answer.cost - 1) < SAME:
        price = f"{times(answer.frugal_seconds)} the training time" if answer.frugal_seconds else "no training at all"
    else:
        price = f"{times(answer.frugal_cost)} the GFLOPs"
    if answer.frugal == answer.baseline:
        return [f"If cost matters: {factor.phrase(answer.frugal)} is within a point of it on validation."]
    return [
        f"If cost matters: {factor.phrase(answer.frugal)} is within a point of it on validation, and on the test split"
        f" {points(answer.frugal_gain)} points against {factor.phrase(answer.baseline)} for {price}."
    ]


def _ensemble(findings: Findings, conclusion: Conclusion, answer: Answer) -> list[str]:
    """The default ensemble against the chosen level, where all datasets of the answer have the same one."""
    score = f"test_{findings.metric.name}_mean"
    cells = findings.cells[findings.cells["dataset_label"].isin(answer.datasets)]
    for name, level in conclusion.setting.items():
        cells = cells[cells[name] == level]
    together = cells[cells["kind"] == ENSEMBLE].set_index("dataset_label")
    names = together["level"].unique()
    in_all_datasets = len(together) == len(answer.datasets) and together[score].notna().all()
    if conclusion.averaged or len(names) != 1 or not in_all_datasets:
        return []
    alone = cells[cells["level"] == answer.chosen].set_index("dataset_label")
    gain = float((together[score] - alone[score]).mean())
    cost = float(together["gflops_mean"].mean() / alone["gflops_mean"].mean())
    members = names[0]
    if findings.factor.ordered:
        members = f"{plural(findings.factor.label)} {members}"
    return [
        f"The ensemble of {members} (mean probability) scores {points(gain)} points against"
        f" {findings.factor.phrase(answer.chosen)} alone, for {times(cost)} its GFLOPs."
    ]


def _best_gain(findings: Findings, conclusion: Conclusion) -> list[str]:
    """The largest gain on the test split, as papers state it, and beside it what a paper states of these datasets."""
    factor, lower = findings.factor, findings.metric.lower_is_better
    known = conclusion.gains.dropna(subset="best_gain")
    known = known[known["best"] != known["baseline"]].sort_values("best_gain", ascending=lower)
    said = []
    if len(known):
        best = known.iloc[0]
        before = best["baseline_score"]
        after = before + best["best_gain"]
        said.append(
            f"Largest gain of any {factor.label} over the baseline, read from the test split as papers"
            f" do: {points(best['best_gain'])} points ({best['dataset_label']},"
            f" {factor.phrase(best['best'])} against {factor.phrase(best['baseline'])},"
            f" {percent(before)} to {percent(after)})."
        )
    return [*said, *_expected(findings, conclusion)]


def _expected(findings: Findings, conclusion: Conclusion) -> list[str]:
    """What publications state of these datasets, and of no other."""
    if findings.factor != findings.results.factors[0]:
        return []
    here = set(conclusion.gains["dataset"])
    said = []
    for expectation in findings.results.expect:
        if here <= set(expectation.datasets):
            said.append(f"{expectation.says} ({expectation.source}).")
    return said
