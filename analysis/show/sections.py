"""What a report shows, in which order: sections of tables and plots, whatever they are written as."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.findings import factor_plots, trial_plots
from raypatch.analysis.show.plots.search import search_plots
from raypatch.analysis.show.tables.comparison import ensembles_table, gains_table, ranks_table
from raypatch.analysis.show.tables.details import calibration_table, class_table, costs_table
from raypatch.analysis.show.tables.scores import metric_table, recipes_table
from raypatch.analysis.show.tables.table import Table
from raypatch.analysis.show.tables.trials import choices_table, importance_table, missing_table, provenance_table
from raypatch.analysis.wording import file_stem


@dataclass(frozen=True)
class Section:
    """A part of the report. anchor: its id in the page."""

    anchor: str
    title: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()


def make_sections(findings: Sequence[Findings]) -> list[Section]:
    """Return the sections that have something to show: those of each factor, then those of the trials."""
    sections = []
    for one in findings:
        own = list(_factor_sections(one))
        sections += own if len(findings) == 1 else [_named_apart(section, one) for section in own]
    sections += _trial_sections(findings[0])
    return [section for section in sections if section.tables or section.plots]


def _factor_sections(findings: Findings) -> Iterator[Section]:
    """What answers the question about one factor."""
    plots = {plot.name.partition("_by_")[0]: plot for plot in factor_plots(findings)}
    against_cost = [plot for name, plot in plots.items() if name.startswith("score_against_")]
    compared = []
    for conclusion in (*findings.overall, *findings.conclusions):
        compared += [gains_table(findings, conclusion), ranks_table(findings, conclusion)]
    yield Section("scores", "Scores", tuple(_metric_tables(findings)), _picked(plots, "scores"))
    yield Section("gain", "Is the difference real?", _known(*compared), _picked(plots, "critical_difference"))
    yield Section("cost", "What it costs", (costs_table(findings),), (*against_cost, *_picked(plots, "cost")))
    yield Section("ensembles", "Ensembles", _known(ensembles_table(findings)))


def _trial_sections(findings: Findings) -> Iterator[Section]:
    """What looks into the trials, whatever the question was."""
    results = findings.results
    plots = {plot.name: plot for plot in (*trial_plots(findings), *search_plots(results))}
    tuned = _known(choices_table(findings), recipes_table(findings), importance_table(results))
    yield Section("search", "Hyperparameters", tuned, _picked(plots, "search_scores", "search_history"))
    yield Section("training", "Training", (), _picked(plots, "learning_curves"))
    yield Section("classes", "Classes", _known(class_table(findings)), _picked(plots, "confusions"))
    yield Section("calibration", "Calibration", _known(calibration_table(findings)), _picked(plots, "reliability"))
    yield Section("missing", "What is missing", _known(missing_table(results)))
    yield Section("provenance", "Where it comes from", (provenance_table(findings),))


def _named_apart(section: Section, findings: Findings) -> Section:
    """The section with the factor in its title and in the names of its files, which must differ from another's."""
    factor = findings.factor
    stem = file_stem(factor.name)
    tables = [replace(table, name=f"{table.name}_by_{stem}") for table in section.tables]
    plots = []
    for plot in section.plots:
        named = plot.name if plot.name.endswith(f"_by_{stem}") else f"{plot.name}_by_{stem}"
        plots.append(replace(plot, name=named))
    title = f"{factor.label[:1].upper()}{factor.label[1:]}: {section.title}"
    return Section(f"{section.anchor}-{stem}", title, tuple(tables), tuple(plots))


def _picked(plots: dict[str, Plot], *names: str) -> tuple[Plot, ...]:
    return tuple(plots[name] for name in names if name in plots)


def _known(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)


def _metric_tables(findings: Findings) -> Iterator[Table]:
    """A table for each metric, that of the answer first, and each dimensionality."""
    for metric in sorted(findings.metrics, key=lambda one: one != findings.metric):
        for _, part in findings.cells.groupby("dimensions"):
            yield metric_table(findings, part, metric)
