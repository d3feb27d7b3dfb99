"""What a report shows, in which order: sections of tables and plots, whatever they are written as."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from raypatch.analysis.answer.clinical import Clinical
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.show.explained import explained_parts
from raypatch.analysis.show.gallery import Gallery
from raypatch.analysis.show.mask_gallery import mask_galleries
from raypatch.analysis.show.plots.clinical import clinical_plots
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.findings import factor_plots, trial_plots
from raypatch.analysis.show.plots.search import search_plots
from raypatch.analysis.show.plots.stages import stage_plots
from raypatch.analysis.show.plots.standings import standing_plots
from raypatch.analysis.show.tables.clinical import clinical_tables
from raypatch.analysis.show.tables.comparison import ensembles_table, gains_table, ranks_table
from raypatch.analysis.show.tables.details import calibration_table, class_table, costs_table
from raypatch.analysis.show.tables.published import published_tables
from raypatch.analysis.show.tables.scores import metric_table, recipes_table
from raypatch.analysis.show.tables.stages import stages_table
from raypatch.analysis.show.tables.standings import averages_table, quartiles_table, rank_counts_table, steps_table
from raypatch.analysis.show.tables.table import Table
from raypatch.analysis.show.tables.trials import choices_table, importance_table, missing_table, provenance_table
from raypatch.analysis.wording import capitalize, file_stem


@dataclass(frozen=True)
class Section:
    """A part of the report. anchor: its id in the page."""

    anchor: str
    title: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    galleries: tuple[Gallery, ...] = ()


def make_sections(findings: Sequence[Findings], clinical: Clinical) -> list[Section]:
    """Return the sections that have something to show: those of each factor, then those of the trials.

    clinical: about the level that validation prefers of the first factor.
    """
    sections = []
    for one in findings:
        for section in _factor_sections(one):
            sections.append(section if len(findings) == 1 else _named_apart(section, one))
    # The trials are the same, whatever was asked of them.
    sections += _trial_sections(findings[0], clinical)
    return [section for section in sections if section.tables or section.plots or section.galleries]


def _factor_sections(findings: Findings) -> Iterator[Section]:
    """What answers the question about one factor."""
    plots = list(factor_plots(findings))
    compared: list[Table | None] = []
    for conclusion in (*findings.overall, *findings.conclusions):
        compared += [gains_table(findings, conclusion), ranks_table(findings, conclusion)]
    cost_plots = (*_picked(plots, "score_against"), *_picked(plots, "cost"))
    yield Section("scores", "Scores", tuple(_metric_tables(findings)), _picked(plots, "scores"))
    yield Section("gain", "Is the difference real?", _known(*compared), _picked(plots, "critical_difference"))
    yield _standing_section(findings)
    yield Section("cost", "What it costs", (costs_table(findings),), cost_plots)
    yield Section("ensembles", "Ensembles", _known(ensembles_table(findings)))


def _standing_section(findings: Findings) -> Section:
    """How the levels stand over the datasets together."""
    tables = _known(
        averages_table(findings), quartiles_table(findings), rank_counts_table(findings), steps_table(findings)
    )
    return Section("standing", "Over the datasets", tables, tuple(standing_plots(findings)))


def _trial_sections(findings: Findings, clinical: Clinical) -> Iterator[Section]:
    """What looks into the trials, whatever the question was."""
    results = findings.results
    plots = [*trial_plots(findings), *search_plots(results)]
    tuned = _known(choices_table(findings), recipes_table(findings), importance_table(results))
    yield Section("published", "Beside what was published", tuple(published_tables(findings)))
    yield Section("search", "Hyperparameters", tuned, _picked(plots, "search"))
    stages = tuple(stage_plots(findings))
    yield Section("stages", "Trainings without labels", _known(stages_table(findings)), stages)
    yield Section("training", "Training", (), _picked(plots, "learning_curves"))
    yield Section("classes", "Classes", _known(class_table(findings)), _picked(plots, "confusions"))
    yield Section("masks", "Masks", galleries=tuple(mask_galleries(findings)))
    yield Section("calibration", "Calibration", _known(calibration_table(findings)), _picked(plots, "reliability"))
    curves = tuple(clinical_plots(findings, clinical))
    yield Section("reviewer", "What a clinical reviewer asks", clinical_tables(findings, clinical), curves)
    yield Section("explained", "Where the models look", *explained_parts(results.trials))
    yield Section("missing", "What is missing", _known(missing_table(results)))
    yield Section("provenance", "Where it comes from", (provenance_table(findings),))


def _named_apart(section: Section, findings: Findings) -> Section:
    """The section with the factor in its title and in the names of its files, which must differ from another's."""
    factor = findings.factor
    stem = file_stem(factor.name)
    tables = [replace(table, name=f"{table.name}_by_{stem}") for table in section.tables]
    plots = []
    for plot in section.plots:
        # Some plots have the factor in their name already: scores_by_model.
        base = plot.name.removesuffix(f"_by_{stem}")
        plots.append(replace(plot, name=f"{base}_by_{stem}"))
    title = f"{capitalize(factor.label)}: {section.title}"
    return Section(f"{section.anchor}-{stem}", title, tuple(tables), tuple(plots))


def _picked(plots: Iterable[Plot], start: str) -> tuple[Plot, ...]:
    """The plots whose names start so; their ends name the factor, the cost or the axis."""
    return tuple(plot for plot in plots if plot.name.startswith(start))


def _known(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)


def _metric_tables(findings: Findings) -> Iterator[Table]:
    """A table for each metric, that of the answer first, and each dimensionality."""
    for metric in sorted(findings.metrics, key=lambda one: one != findings.metric):
        for _, part in findings.cells.groupby("dimensions"):
            yield metric_table(findings, part, metric)
