"""Everything a run folder shows, written as files: a page, Markdown, LaTeX tables, figures, and all numbers as CSV."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.answer.sentences import Statement, state_answer
from raypatch.analysis.load import Study, load_study
from raypatch.analysis.show.figures import on_all_cores, save_plot
from raypatch.analysis.show.page import render_page
from raypatch.analysis.show.render import Table, to_latex, to_markdown, write_csv
from raypatch.analysis.show.sections import METHOD, Section, count_trials, list_notes, make_sections
from raypatch.analysis.show.tables import main_table
from raypatch.analysis.statistics.resampling import RESAMPLES
from raypatch.files import write_atomically
from raypatch.results import SweepPaths

FORMATS = ("html", "md", "latex")
NOT_IN_PRINT = ("missing", "provenance", "classes", "recipes")


@dataclass(frozen=True)
class Report:
    """What a report says before it is written. statements: the answers. notes: what a reader must know first."""

    title: str
    lead: str
    statements: tuple[Statement, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    main: Table

    @property
    def text(self) -> str:
        """The answer, the main table and the notes, as Markdown, to print."""
        answers = [f"{one.label}: {one.verdict} {' '.join(one.support[:2])}" for one in self.statements]
        return "\n".join([*answers, "", to_markdown(self.main), *(f"- {note}" for note in self.notes)])


@dataclass(frozen=True)
class ReportFiles:
    """What was written. files: the page first. text: what to print, as Markdown."""

    folder: Path
    files: tuple[Path, ...]
    text: str


def prepare_report(runs: Sequence[Path | str], resamples: int = RESAMPLES) -> Report:
    """Return the report of one or several runs, finished or not.

    Raises ValueError for a folder that is no run folder, and for runs without any finished trial.
    """
    study = load_study(*runs)
    _require_results(study, runs)
    findings = conclude(study, resamples)
    names = ", ".join(dict.fromkeys([*study.records, *study.trials["run"]]))
    return Report(
        title=f"Which patch size? {names}",
        lead=f"raypatch, run {names}: {count_trials(findings)}.",
        statements=tuple(state_answer(findings, setting) for setting in findings.settings),
        notes=tuple(list_notes(findings)),
        sections=tuple(make_sections(findings)),
        main=main_table(findings.cells),
    )


def write_report(runs: Sequence[Path | str], out: Path | None = None, formats: Sequence[str] = FORMATS) -> ReportFiles:
    """Write the report of one or several runs, finished or not, to `out` (default: report/ in the first run).

    Always written: tables/*.csv and figures/*.{csv,svg,pdf,png}. html: report.html. md: report.md. latex: tables.tex.
    Raises ValueError for an unknown format, a folder that is no run folder, runs without any finished trial, or a
    folder that cannot be written.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise ValueError(f"unknown format {', '.join(unknown)!r}; use some of {', '.join(FORMATS)}")
    report = prepare_report(runs)
    texts = {}
    if "html" in formats:
        texts["report.html"] = render_page(report.title, report.lead, report.statements, report.notes, report.sections)
    if "md" in formats:
        texts["report.md"] = "\n".join(_markdown(report))
    if "latex" in formats:
        texts["tables.tex"] = "\n".join(_latex(report))
    folder = out or SweepPaths(Path(runs[0])).report
    try:
        files = _write(folder, texts, report)
    except OSError as error:
        raise ValueError(f"cannot write the report to {folder}: {error.strerror}; give another --out") from error
    return ReportFiles(folder, tuple(files), report.text)


def _require_results(study: Study, runs: Sequence[Path | str]) -> None:
    if (study.trials["status"] == "ok").any():
        return
    reasons = [f"{len(study.missing)} planned trials have no result"] if len(study.missing) else []
    reasons += [str(problem) for problem in study.problems]
    failed = study.trials.loc[study.trials["status"] == "failed", "error"]
    reasons += [f"{count} failed: {error}" for error, count in failed.value_counts().items()]
    raise ValueError(
        f"nothing to report: no finished trial in {', '.join(map(str, runs))};"
        f" continue it with `raypatch resume`. {'; '.join(reasons)}"
    )


def _write(folder: Path, texts: dict[str, str], report: Report) -> list[Path]:
    files = []
    for part in ("tables", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        files.append(folder / name)
        write_atomically(files[-1], text.encode())
    for table in [report.main, *(table for section in report.sections for table in section.tables)]:
        files.append(folder / "tables" / f"{table.name}.csv")
        write_csv(table, files[-1])
    plots = [plot for section in report.sections for plot in section.plots]
    panels = sum(len(plot.panels) for plot in plots)
    for written in on_all_cores(save_plot, [(plot, folder / "figures") for plot in plots], panels=panels):
        files += written
    return files


def _markdown(report: Report) -> Iterator[str]:
    yield f"# {report.title}\n\n{report.lead}\n"
    for statement in report.statements:
        yield f"## {statement.label}: {statement.verdict}\n"
        yield from (f"- {sentence}" for sentence in statement.support)
        yield ""
    yield from (f"- {note}" for note in report.notes)
    for section in report.sections:
        yield f"\n## {section.title}\n"
        yield from map(to_markdown, section.tables)
        for plot in section.plots:
            yield f"**{plot.title}**\n\n![{plot.title}](figures/{plot.name}.png)\n\n{plot.caption}\n"
    yield "\n## Method\n"
    yield from (f"- {sentence}" for sentence in METHOD)
    yield ""


def _latex(report: Report) -> Iterator[str]:
    yield "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}."
    for section in report.sections:
        yield from (to_latex(table) for table in section.tables if table.name not in NOT_IN_PRINT)
