"""The plots of a study: which data each shows and what it says beneath."""

import itertools
from collections.abc import Iterator

import pandas as pd

from raypatch.analysis.answer.cells import factors
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.load import HEADLINE, METRICS, load_epochs
from raypatch.analysis.show import panels
from raypatch.analysis.show.figures import Plot
from raypatch.analysis.show.panels import METRIC_LABELS, style_of

LEAST_SHARE = 0.01
COSTS = {
    "train_seconds": ("training time", "seconds"),
    "images_per_second": ("training speed", "images per second"),
    "peak_memory_gb": ("peak memory", "GB"),
}


def make_plots(findings: Findings) -> Iterator[Plot]:
    """Yield every plot that the study has data for."""
    for make in (plot_scores, plot_pareto, plot_costs, plot_ranks, plot_curves, plot_reliability, plot_confusions):
        plot = make(findings)
        if not plot.data.empty:
            yield plot


def name_panels(frame: pd.DataFrame, findings: Findings) -> pd.Series:
    """Return the panel of each row: its dataset, with the factors of the study where they differ."""
    names = frame["dataset_label"].astype(str)
    for factor in factors(findings.fields):
        names = names + f", {factor}=" + frame[factor].astype(str)
    return names


def plot_scores(findings: Findings) -> Plot:
    """Every metric against patch size, with bootstrap intervals."""
    cells = findings.cells[findings.cells["patch_size"] > 0]
    parts = []
    for metric in METRICS:
        columns = {f"test_{metric}_{part}": part for part in ("mean", "std", "low", "high")}
        part = cells[["patch_size", "seeds", *columns]].rename(columns=columns)
        parts.append(part.assign(metric=metric, panel=name_panels(cells, findings)))
    return Plot(
        name="scores_by_patch_size",
        title="Score against patch size",
        caption="Test scores, mean over seeds. Bars: 95 % bootstrap intervals over test images and seeds.",
        data=pd.concat(parts, ignore_index=True),
        draw=panels.draw_scores,
        lines=tuple((METRIC_LABELS[metric], *style_of(place + 1)) for place, metric in enumerate(METRICS)),
    )


def plot_pareto(findings: Findings) -> Plot:
    """The headline score against GFLOPs, with the Pareto front."""
    cells = findings.cells.dropna(subset=[f"test_{HEADLINE}_mean", "gflops_mean"])
    data = pd.DataFrame(
        {
            "panel": name_panels(cells, findings),
            "patch": cells["patch"],
            "gflops": cells["gflops_mean"],
            "score": cells[f"test_{HEADLINE}_mean"],
            "ensemble": cells["patch_size"] == 0,
        }
    )
    cheapest_first = data.sort_values(["gflops", "score"], ascending=[True, False]).groupby("panel")["score"]
    so_far = cheapest_first.transform(lambda score: score.cummax().shift(fill_value=-1))
    return Plot(
        name="score_against_gflops",
        title="Score against cost",
        caption=(
            "Balanced accuracy on the test split against GFLOPs per image; each point a patch size, or the ensemble,"
            " which costs the sum of its members. The line is the Pareto front: nothing cheaper scores higher."
        ),
        data=data.assign(front=data["score"] > so_far[data.index]),
        draw=panels.draw_pareto,
        lines=(("patch size", *style_of(1)), ("ensemble", *style_of(4))),
    )


def plot_costs(findings: Findings) -> Plot:
    """Time, speed and memory by patch size."""
    cells = findings.cells[findings.cells["patch_size"] > 0]
    parts = []
    for (_, block), (name, (label, unit)) in itertools.product(cells.groupby("dimensions"), COSTS.items()):
        part = pd.DataFrame(
            {
                "panel": f"{block['dimensions'].iloc[0]:.0f}D: {label}",
                "dataset": name_panels(block, findings),
                "patch_size": block["patch_size"],
                "value": block[f"{name}_mean"],
                "unit": unit,
            }
        )
        parts.append(part[part["value"] > 0])
    return Plot(
        name="cost_by_patch_size",
        title="Time and memory",
        caption=(
            "A line per dataset, mean over seeds: training time of a whole trial with its validation, images per second"
            " in training, and peak memory of the device (of the process on a CPU)."
        ),
        data=pd.concat(parts, ignore_index=True),
        draw=panels.draw_costs,
        columns=len(COSTS),
    )


def plot_ranks(findings: Findings) -> Plot:
    """Critical-difference diagrams of the settings that have rank tests."""
    parts = []
    for setting in findings.settings:
        if setting.ranks is None:
            continue
        nemenyi = (
            setting.ranks.nemenyi.rename_axis("first").reset_index().melt("first", var_name="second", value_name="p")
        )
        datasets = len(setting.ranks.datasets)
        parts.append(
            nemenyi.assign(
                panel=f"{setting.label}, {datasets} datasets",
                rank_first=nemenyi["first"].map(setting.ranks.ranks),
                critical_difference=setting.ranks.critical_difference,
            )
        )
    return Plot(
        name="critical_difference",
        title="Ranks over the datasets",
        caption=(
            "Mean rank of each patch size by balanced accuracy. A bar joins patch sizes that Nemenyi's test at 5 % does"
            " not tell apart."
        ),
        data=pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(),
        draw=panels.draw_ranks,
    )


def plot_curves(findings: Findings) -> Plot:
    """Validation loss by epoch."""
    epochs = load_epochs(findings.trials)
    known = ["trial_id", "dimensions", "dataset_label", *factors(findings.fields)]
    epochs = epochs.merge(findings.trials[known], on="trial_id")
    epochs["panel"] = name_panels(epochs, findings)
    points = epochs.groupby(["dimensions", "panel", "patch_size", "epoch"])["val_loss"]
    curves = points.agg(mean="mean", low="min", high="max")
    sizes = sorted(epochs["patch_size"].unique(), reverse=True)
    return Plot(
        name="learning_curves",
        title="Learning curves",
        caption="Loss on the validation split by epoch: mean and range over seeds.",
        data=curves.dropna().reset_index(),
        draw=panels.draw_curves,
        lines=tuple((f"patch {size}", *style_of(place)) for place, size in enumerate(sizes)),
    )


def plot_reliability(findings: Findings) -> Plot:
    """Accuracy by confidence."""
    bins = findings.evidence.reliability
    bins = bins.assign(panel=name_panels(bins, findings))
    share = bins["predictions"] / bins.groupby(["panel", "patch_size"])["predictions"].transform("sum")
    sizes = sorted(bins["patch_size"].unique(), reverse=True)
    return Plot(
        name="reliability",
        title="Can the confidence be trusted?",
        caption=(
            "Accuracy of test predictions by their confidence, all seeds, in 15 bins; bins with under 1 % of the"
            " predictions are not drawn. On the dashed line confidence is right, under it too high."
        ),
        data=bins[share >= LEAST_SHARE],
        draw=panels.draw_reliability,
        lines=tuple((f"patch {size}", *style_of(place)) for place, size in enumerate(sizes)),
    )


def plot_confusions(findings: Findings) -> Plot:
    """Confusions of the patch size that validation prefers."""
    keys = ["dataset", *factors(findings.fields)]
    chosen = pd.concat([setting.gains for setting in findings.settings])[[*keys, "chosen"]]
    data = findings.evidence.confusions.merge(chosen, on=keys).query("patch_size == chosen")
    images = data.groupby([*keys, "true"])["images"].transform("sum")
    names = name_panels(data, findings) + ", patch " + data["patch_size"].astype(str)
    return Plot(
        name="confusions",
        title="What is taken for what",
        caption=(
            "Percent of each true class's test images, mean over seeds, at the patch size that validation prefers."
            " Classes have the numbers of the table of classes."
        ),
        data=data.assign(panel=names, share=data["images"] / images.where(images > 0)),
        draw=panels.draw_confusion,
    )
