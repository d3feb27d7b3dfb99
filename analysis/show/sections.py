"""What a report says, in which order: sections of tables and plots, whatever they are written as."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.load import HEADLINE, METRICS
from raypatch.analysis.show.comparison_tables import ensembles_table, gains_table, ranks_table
from raypatch.analysis.show.detail_tables import (
    calibration_table,
    choices_table,
    class_table,
    costs_table,
    missing_table,
)
from raypatch.analysis.show.figures import Plot
from raypatch.analysis.show.plots import make_plots
from raypatch.analysis.show.render import Cell, Table
from raypatch.analysis.show.search import importance_table, search_plots
from raypatch.analysis.show.tables import main_table, metric_table

METHOD = (
    "Scores are read on the test split once per trial, with the weights of its best validation epoch. Every choice"
    " (epoch, hyperparameters, patch size, ensemble weights and members) is made on the validation split.",
    "Accuracy is the share of right predictions; balanced accuracy the mean recall over the classes; AUC the mean of"
    " the one-versus-rest areas under the ROC curve. Multilabel sets: mean over the labels, threshold 0.5. A figure"
    " that the labels leave undefined is shown as –, never as 0.",
    "± is the sample standard deviation over seeds. Intervals are 95 % percentile bootstrap intervals from 1000"
    " resamples: test images within their class, and seeds. Differences of two patch sizes use the same images in each"
    " resample; p is two-sided, corrected over the datasets after Holm.",
    "Across datasets: Friedman's test on the mean over seeds, then Nemenyi's, and Wilcoxon's signed-rank test of each"
    " pair with Holm's correction (Demšar, JMLR 2006). With five datasets or fewer Wilcoxon's test cannot reach 5 %.",
    "GFLOPs are 2 × multiply-accumulates of one forward pass for one image, attention included; the column `no"
    " attention` leaves out the two attention products, as most papers count. An ensemble costs all its members.",
    "Trials of one dataset and patch size that differ in anything but the seed are never averaged. Where"
    " hyperparameters were tuned, the configuration with the most seeds and the best validation figure stands for the"
    " patch size.",
)


@dataclass(frozen=True)
class Section:
    """A part of the report. anchor: its id in the page."""

    anchor: str
    title: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()


def make_sections(findings: Findings) -> list[Section]:
    """Return the sections that have something to show."""
    plots = {plot.name: plot for plot in (*make_plots(findings), *search_plots(findings.study))}

    def pick(*names: str) -> tuple[Plot, ...]:
        return tuple(plots[name] for name in names if name in plots)

    tests = [table for setting in findings.settings for table in (gains_table(setting), ranks_table(setting))]
    sections = [
        Section("scores", "Scores", tuple(_metric_tables(findings)), pick("scores_by_patch_size")),
        Section("gain", "Is the difference real?", _known(*tests), pick("critical_difference")),
        Section("cost", "What it costs", (costs_table(findings),), pick("score_against_gflops", "cost_by_patch_size")),
        Section("ensembles", "Ensembles", _known(ensembles_table(findings))),
        Section(
            "search",
            "Hyperparameters",
            _known(choices_table(findings), _recipes_table(findings), importance_table(findings.study)),
            pick("search_scores", "search_history"),
        ),
        Section("training", "Training", (), pick("learning_curves")),
        Section("classes", "Classes", _known(class_table(findings)), pick("confusions")),
        Section("calibration", "Calibration", _known(calibration_table(findings)), pick("reliability")),
        Section("missing", "What is missing", _known(missing_table(findings))),
        Section("provenance", "Where it comes from", (provenance_table(findings),)),
    ]
    return [section for section in sections if section.tables or section.plots]


def _known(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)


def _metric_tables(findings: Findings) -> Iterator[Table]:
    for metric in sorted(METRICS, key=lambda name: name != HEADLINE):
        for _, part in findings.cells.groupby("dimensions"):
            yield metric_table(part, metric)


def _recipes_table(findings: Findings) -> Table | None:
    if findings.recipes.empty:
        return None
    return replace(main_table(findings.recipes), name="recipes", title="Every configuration")


def provenance_table(findings: Findings) -> Table:
    """Return versions, hardware, commits and seeds: a row per kind, a column per distinct state of the trials."""
    study = findings.study
    known = study.provenance.set_index("run").T
    rows = [(Cell(str(name)), *(Cell(str(value)) for value in values)) for name, values in known.iterrows()]
    seeds = ", ".join(map(str, sorted(set(findings.trials["seed"]))))
    rows.append((Cell("seeds"), Cell(seeds), *(Cell("") for _ in range(known.shape[1] - 1))))
    for run, record in study.records.items():
        command = Cell(" ".join(record.command))
        rows.append((Cell(f"command of {run}"), command, *(Cell("") for _ in range(known.shape[1] - 1))))
    return Table(
        name="provenance",
        title="Versions, hardware and commits of the trials",
        columns=("Run", *map(str, known.columns)),
        blocks=(tuple(rows),),
        labels=1 + known.shape[1],
        data=study.provenance,
    )


def list_notes(findings: Findings) -> list[str]:
    """Return what a reader must know first: made-up data, trials that are missing, failed or could not be used."""
    study = findings.study
    notes = []
    made_up = sorted(label for label in findings.trials["dataset_label"].unique() if label.startswith("phantom"))
    if made_up:
        notes.append(f"{', '.join(made_up)}: made-up images. They show that the tool works and nothing about medicine.")
    if len(study.missing):
        states = study.missing["state"].value_counts()
        shown = ", ".join(f"{count} {state}" for state, count in states.items())
        notes.append(f"{len(study.missing)} planned trials have no result: {shown}. The table at the end names them.")
    failed = study.trials[study.trials["status"] == "failed"]
    for error, count in failed["error"].value_counts().items():
        notes.append(f"{count} trials failed: {error}")
    seeds = findings.trials.groupby("dataset_label")["seed"].nunique()
    if (seeds == 1).any():
        few = ", ".join(seeds.index[seeds == 1])
        notes.append(f"One seed only: {few}. No spread is shown, and the tests know nothing of the luck of training.")
    notes += [f"Left out: {problem}" for problem in findings.problems]
    return notes


def count_trials(findings: Findings) -> str:
    """Return how far the study is: `210 of 216 planned trials finished`."""
    done = int((findings.study.trials["status"] == "ok").sum())
    if not findings.study.records:
        return f"{done} trials finished"
    planned = {config.trial_id() for record in findings.study.records.values() for config in record.trials}
    missing = set(findings.study.missing["trial_id"])
    extra = done + int((findings.study.trials["status"] == "pruned").sum()) - len(planned - missing)
    more = f", and {extra} of earlier commands" if extra > 0 else ""
    return f"{len(planned - missing)} of {len(planned)} planned trials finished{more}"
