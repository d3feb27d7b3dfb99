"""The plots of one factor: which data each shows and what it says beneath."""

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.scores.cells import ENSEMBLE
from raypatch.analysis.answer.scores.summary import singles
from raypatch.analysis.frames.load import load_epochs
from raypatch.analysis.show.plots import draw
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import style_of
from raypatch.analysis.show.tables.scores import significant_count
from raypatch.analysis.wording import capitalize, file_stem

LEAST_SHARE = 0.01
RUN_COST_LABELS = {
    "train_seconds": ("training time", "seconds"),
    "images_per_second": ("training speed", "images per second"),
    "peak_memory_gb": ("peak memory", "GB"),
}
Lines = tuple[tuple[str, str, str], ...]


def factor_plots(findings: Findings) -> Iterator[Plot]:
    """Yield the plots that answer the question about the factor, where there are data for them."""
    for make in (plot_scores, plot_pareto, plot_costs, plot_ranks):
        plot = make(findings)
        if not plot.data.empty:
            yield plot


def trial_plots(findings: Findings) -> Iterator[Plot]:
    """Yield the plots that look into the trials, where there are data for them."""
    for make in (plot_curves, plot_reliability, plot_confusions):
        plot = make(findings)
        if not plot.data.empty:
            yield plot


def name_panels(frame: pd.DataFrame, findings: Findings) -> pd.Series:
    """Return the panel of each row: its dataset, with the setting where there are several."""
    names = frame["dataset_label"].astype(str)
    for setting in findings.question.settings:
        names = names + ", " + frame[setting.name].map(setting.phrase)
    return names


def level_lines(findings: Findings, levels: Sequence[str]) -> Lines:
    """Return the legend of these levels, each in its own colour and marker, the same in all plots."""
    factor = findings.factor
    lines = []
    for level in sorted(set(levels), key=factor.rank):
        lines.append((factor.phrase(level), *style_of(factor.rank(level))))
    return tuple(lines)


def plot_scores(findings: Findings) -> Plot:
    """Every metric against the level, with its interval."""
    cells, factor = singles(findings.cells), findings.factor
    parts, lines = [], []
    # The first style is that of a baseline, which a metric is not.
    for place, metric in enumerate(findings.metrics, 1):
        part = cells[["level", "level_rank", "seeds"]].copy()
        for name in ("mean", "std", "low", "high"):
            part[name] = cells[f"test_{metric.name}_{name}"]
        part = part.assign(metric=metric.name, panel=name_panels(cells, findings))
        # A dataset whose task has no such metric, such as kappa without order, has no point of it.
        parts.append(part.dropna(subset=["mean"]))
        lines.append((metric.label, *style_of(place)))
    return Plot(
        name=f"scores_by_{file_stem(factor.name)}",
        title=f"Score against {factor.label}",
        caption="Test scores, mean over seeds. Bars: 95 % intervals for other test images and seeds.",
        data=pd.concat(parts, ignore_index=True),
        draw=partial(draw.draw_scores, heading=factor.heading, joined=factor.ordered),
        lines=tuple(lines),
    )


def plot_pareto(findings: Findings) -> Plot:
    """The headline score against cost, with the Pareto front: GFLOPs, or training time where these do not differ.

    What takes no training, such as nearest neighbours, has no place on the latter.
    """
    metric, cells = findings.metric, findings.cells
    cost, unit = "gflops", "GFLOPs per image"
    if significant_count(singles(cells)) <= 1:
        cost, unit = "train_seconds", "training time, seconds"
    cells = cells[cells[f"test_{metric.name}_mean"].notna() & (cells[f"{cost}_mean"] > 0)]
    data = pd.DataFrame(
        {
            "panel": name_panels(cells, findings),
            "level": cells["level"],
            "kind": cells["kind"],
            cost: cells[f"{cost}_mean"],
            "score": cells[f"test_{metric.name}_mean"],
            "low": cells[f"test_{metric.name}_low"],
            "high": cells[f"test_{metric.name}_high"],
        }
    )
    data["front"] = _is_on_front(data, cost, lower=metric.lower_is_better)
    lines: Lines = (("one level", *style_of(1)),)
    together = ""
    if (data["kind"] == ENSEMBLE).any():
        lines = (*lines, ("ensemble", *style_of(4)))
        together = ", or the ensemble, which costs the sum of its members"
    return Plot(
        name=f"score_against_{cost}",
        title="Score against cost",
        caption=(
            f"{capitalize(metric.label)} on the test split against {unit}; each point a"
            f" {findings.factor.label}{together}. Bars: 95 % intervals for other test images and seeds. The line is"
            " the Pareto front: nothing cheaper scores better."
        ),
        data=data,
        draw=partial(draw.draw_pareto, cost=cost, unit=unit, label=metric.label),
        lines=lines,
    )


def _is_on_front(data: pd.DataFrame, cost: str, *, lower: bool) -> pd.Series:
    """Whether each point scores better than everything in its panel that is cheaper. lower: a lower score is better."""
    good = -data["score"] if lower else data["score"]
    # Of points that cost the same the best comes first, so that the others are not on the front.
    ordered = data.assign(good=good).sort_values([cost, "good"], ascending=[True, False])
    best_up_to_here = ordered.groupby("panel")["good"].cummax()
    best_before = best_up_to_here.groupby(ordered["panel"]).shift(fill_value=float("-inf"))
    return good > best_before[data.index]


def plot_costs(findings: Findings) -> Plot:
    """Time, speed and memory by level."""
    cells, factor = singles(findings.cells), findings.factor
    datasets = list(name_panels(cells, findings).unique())
    lines = [(dataset, *style_of(place)) for place, dataset in enumerate(datasets)]
    parts = []
    for dimensions, block in cells.groupby("dimensions"):
        for name, (label, unit) in RUN_COST_LABELS.items():
            part = pd.DataFrame({"panel": f"{dimensions}D: {label}", "dataset": name_panels(block, findings)})
            part["place"] = part["dataset"].map(datasets.index)
            part[["level", "level_rank"]] = block[["level", "level_rank"]]
            part["value"] = block[f"{name}_mean"]
            part["unit"] = unit
            # The axis is logarithmic: 0 and what was not measured have no place on it.
            parts.append(part[part["value"] > 0])
    lines_or_points = "A line" if factor.ordered else "Points"
    return Plot(
        name=f"cost_by_{file_stem(factor.name)}",
        title="Time and memory",
        caption=(
            f"{lines_or_points} per dataset, mean over seeds: training time of a whole trial with its"
            " validation, images per second in training, and peak memory of the device (of the process"
            " on a CPU)."
        ),
        data=pd.concat(parts, ignore_index=True),
        draw=partial(draw.draw_costs, heading=factor.heading, joined=factor.ordered),
        lines=tuple(lines),
        columns=len(RUN_COST_LABELS),
    )


def plot_ranks(findings: Findings) -> Plot:
    """Critical-difference diagrams of the conclusions that have rank tests."""
    parts = []
    for conclusion in (*findings.overall, *findings.conclusions):
        ranks = conclusion.ranks
        # Mean ranks of two levels are one number, which the table of gains says better.
        if ranks is None or len(ranks.ranks) < 3:
            continue
        square = ranks.nemenyi.rename_axis("first").reset_index()
        pairs = square.melt("first", var_name="second", value_name="p")
        pairs["panel"] = f"{conclusion.label}, {len(ranks.datasets)} datasets"
        pairs["label"] = pairs["first"].map(findings.factor.phrase)
        pairs["rank_first"] = pairs["first"].map(ranks.ranks)
        pairs["critical_difference"] = ranks.critical_difference
        parts.append(pairs)
    return Plot(
        name="critical_difference",
        title="Ranks over the datasets",
        caption=(
            f"Mean rank of each {findings.factor.label} by {findings.metric.label}. A bar joins those that Nemenyi's"
            " test at 5 % does not tell apart."
        ),
        data=pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(),
        draw=draw.draw_ranks,
    )


def plot_curves(findings: Findings) -> Plot:
    """Validation loss by epoch."""
    question, trials = findings.question, findings.trials
    own = ["trial_id", "dimensions", "dataset_label", "level_rank", *question.setting_keys]
    epochs = load_epochs(trials).merge(trials[own], on="trial_id")
    epochs["panel"] = name_panels(epochs, findings)
    points = epochs.groupby(["dimensions", "panel", "level", "level_rank", "epoch"])["val_loss"]
    curves = points.agg(mean="mean", low="min", high="max").dropna().reset_index()
    # Grouping has sorted the panels by name; they belong in the order of the trials, as in every other plot.
    panels = pd.Index(name_panels(trials, findings).unique())
    curves["place"] = panels.get_indexer(curves["panel"])
    curves = curves.sort_values(["place", "level_rank", "epoch"]).drop(columns="place")
    return Plot(
        name="learning_curves",
        title="Learning curves",
        caption="Loss on the validation split by epoch: mean and range over seeds.",
        data=curves.reset_index(drop=True),
        draw=draw.draw_curves,
        lines=level_lines(findings, list(curves["level"])),
    )


def plot_reliability(findings: Findings) -> Plot:
    """Accuracy by confidence."""
    bins = findings.evidence.reliability
    bins = bins.assign(panel=name_panels(bins, findings))
    bins["level_rank"] = bins["level"].map(findings.factor.rank)
    total = bins.groupby(["panel", "level"])["predictions"].transform("sum")
    # The accuracy of a handful of predictions jumps about and would draw the eye.
    is_drawn = bins["predictions"] / total >= LEAST_SHARE
    return Plot(
        name="reliability",
        title="Can the confidence be trusted?",
        caption=(
            "Accuracy of test predictions by their confidence, all seeds, in 15 bins; bins with under 1 % of the"
            " predictions are not drawn. On the dashed line confidence is right, under it too high."
        ),
        data=bins[is_drawn],
        draw=draw.draw_reliability,
        lines=level_lines(findings, list(bins["level"])),
    )


def plot_confusions(findings: Findings) -> Plot:
    """Confusions at the level that validation prefers."""
    series = findings.question.series
    chosen = findings.gains[[*series, "chosen"]]
    data = findings.evidence.confusions.merge(chosen, on=series)
    data = data[data["level"] == data["chosen"]]
    images = data.groupby([*series, "true"], dropna=False)["images"].transform("sum")
    shares = data["images"] / images.where(images > 0)
    panels = name_panels(data, findings) + ", " + data["level"].map(findings.factor.phrase)
    return Plot(
        name="confusions",
        title="What is taken for what",
        caption=(
            f"Percent of each true class's test images, mean over seeds, at the {findings.factor.label}"
            " that validation prefers. Classes have the numbers of the table of classes."
        ),
        data=data.assign(panel=panels, share=shares),
        draw=draw.draw_confusion,
    )
