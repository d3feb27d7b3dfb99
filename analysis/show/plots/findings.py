"""The plots of one factor: which data each shows and what it says beneath."""

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from raypatch.analysis.answer.cells import ENSEMBLE
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.summary import singles
from raypatch.analysis.load import load_epochs
from raypatch.analysis.show.plots import draw
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import style_of
from raypatch.analysis.show.tables.scores import significant_count
from raypatch.analysis.wording import file_stem

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
    known = sorted(set(levels), key=factor.rank)
    return tuple((factor.phrase(level), *style_of(factor.rank(level))) for level in known)


def plot_scores(findings: Findings) -> Plot:
    """Every metric against the level, with its interval."""
    cells, factor = singles(findings.cells), findings.factor
    parts = []
    for metric in findings.metrics:
        columns = {f"test_{metric.name}_{part}": part for part in ("mean", "std", "low", "high")}
        part = cells[["level", "level_rank", "seeds", *columns]].rename(columns=columns)
        parts.append(part.assign(metric=metric.name, panel=name_panels(cells, findings)))
    labels = [metric.label for metric in findings.metrics]
    return Plot(
        name=f"scores_by_{file_stem(factor.name)}",
        title=f"Score against {factor.label}",
        caption="Test scores, mean over seeds. Bars: 95 % intervals for other test images and seeds.",
        data=pd.concat(parts, ignore_index=True),
        draw=partial(draw.draw_scores, heading=factor.heading, joined=factor.ordered),
        lines=tuple((label, *style_of(place + 1)) for place, label in enumerate(labels)),
    )


def plot_pareto(findings: Findings) -> Plot:
    """The headline score against cost, with the Pareto front: GFLOPs, or training time where these do not differ."""
    metric, cells = findings.metric, findings.cells
    by_gflops = significant_count(singles(cells)) > 1
    cost, unit = ("gflops", "GFLOPs per image") if by_gflops else ("train_seconds", "training time, seconds")
    cells = cells.dropna(subset=[f"test_{metric.name}_mean", f"{cost}_mean"])
    data = pd.DataFrame(
        {
            "panel": name_panels(cells, findings),
            "level": cells["level"],
            "kind": cells["kind"],
            cost: cells[f"{cost}_mean"],
            "score": cells[f"test_{metric.name}_mean"],
        }
    )
    good = -data["score"] if metric.lower_is_better else data["score"]
    ordered = data.assign(good=good).sort_values([cost, "good"], ascending=[True, False])
    best_so_far = ordered.groupby("panel")["good"].transform(lambda own: own.cummax().shift(fill_value=float("-inf")))
    has_ensemble = (data["kind"] == ENSEMBLE).any()
    lines: Lines = (("one level", *style_of(1)),)
    if has_ensemble:
        lines = (*lines, ("ensemble", *style_of(4)))
    together = ", or the ensemble, which costs the sum of its members" if has_ensemble else ""
    label = f"{metric.label[:1].upper()}{metric.label[1:]}"
    return Plot(
        name=f"score_against_{cost}",
        title="Score against cost",
        caption=(
            f"{label} on the test split against {unit}; each point a {findings.factor.label}{together}. The line is"
            " the Pareto front: nothing cheaper scores better."
        ),
        data=data.assign(front=good > best_so_far[data.index]),
        draw=partial(draw.draw_pareto, cost=cost, unit=unit, label=metric.label),
        lines=lines,
    )


def plot_costs(findings: Findings) -> Plot:
    """Time, speed and memory by level."""
    cells, factor = singles(findings.cells), findings.factor
    parts = []
    for dimensions, block in cells.groupby("dimensions"):
        for name, (label, unit) in RUN_COST_LABELS.items():
            part = pd.DataFrame(
                {
                    "panel": f"{dimensions}D: {label}",
                    "dataset": name_panels(block, findings),
                    "level": block["level"],
                    "level_rank": block["level_rank"],
                    "value": block[f"{name}_mean"],
                    "unit": unit,
                }
            )
            parts.append(part[part["value"] > 0])
    return Plot(
        name=f"cost_by_{file_stem(factor.name)}",
        title="Time and memory",
        caption=(
            f"{'A line' if factor.ordered else 'Points'} per dataset, mean over seeds: training time of a whole trial"
            " with its validation, images per second in training, and peak memory of the device (of the process on a"
            " CPU)."
        ),
        data=pd.concat(parts, ignore_index=True),
        draw=partial(draw.draw_costs, heading=factor.heading, joined=factor.ordered),
        columns=len(RUN_COST_LABELS),
    )


def plot_ranks(findings: Findings) -> Plot:
    """Critical-difference diagrams of the conclusions that have rank tests."""
    parts = []
    for conclusion in (*findings.overall, *findings.conclusions):
        ranks = conclusion.ranks
        if ranks is None:
            continue
        pairs = ranks.nemenyi.rename_axis("first").reset_index().melt("first", var_name="second", value_name="p")
        parts.append(
            pairs.assign(
                panel=f"{conclusion.label}, {len(ranks.datasets)} datasets",
                label=pairs["first"].map(findings.factor.phrase),
                rank_first=pairs["first"].map(ranks.ranks),
                critical_difference=ranks.critical_difference,
            )
        )
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
    epochs = load_epochs(trials)
    own = ["trial_id", "dimensions", "dataset_label", "level_rank", *question.setting_keys]
    places = {name: place for place, name in enumerate(dict.fromkeys(name_panels(trials, findings)))}
    epochs = epochs.merge(trials[own], on="trial_id")
    epochs["panel"] = name_panels(epochs, findings)
    points = epochs.groupby(["dimensions", "panel", "level", "level_rank", "epoch"])["val_loss"]
    curves = points.agg(mean="mean", low="min", high="max").dropna().reset_index()
    curves["place"] = curves["panel"].map(places)
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
    share = bins["predictions"] / bins.groupby(["panel", "level"])["predictions"].transform("sum")
    return Plot(
        name="reliability",
        title="Can the confidence be trusted?",
        caption=(
            "Accuracy of test predictions by their confidence, all seeds, in 15 bins; bins with under 1 % of the"
            " predictions are not drawn. On the dashed line confidence is right, under it too high."
        ),
        data=bins[share >= LEAST_SHARE],
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
    names = name_panels(data, findings) + ", " + data["level"].map(findings.factor.phrase)
    return Plot(
        name="confusions",
        title="What is taken for what",
        caption=(
            f"Percent of each true class's test images, mean over seeds, at the {findings.factor.label} that validation"
            " prefers. Classes have the numbers of the table of classes."
        ),
        data=data.assign(panel=names, share=data["images"] / images.where(images > 0)),
        draw=draw.draw_confusion,
    )
