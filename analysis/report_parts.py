"""What a report says, before it is written as a page, Markdown, LaTeX or CSV."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from raypatch.analysis.answer.clinical import examine_clinically
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.sentences import Statement, state_answers
from raypatch.analysis.show.checklist import checklist_table
from raypatch.analysis.show.gallery import Gallery
from raypatch.analysis.show.notes import count_trials, describe_method, list_notes, title_of
from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.sections import Section, make_sections
from raypatch.analysis.show.tables.latex import to_latex
from raypatch.analysis.show.tables.scores import main_table
from raypatch.analysis.show.tables.table import Table, list_items, to_markdown
from raypatch.analysis.wording import capitalize
from raypatch.analysis.written import as_records, plain

NOT_IN_PRINT = ("missing", "provenance", "classes", "recipes", "checklist")


@dataclass(frozen=True)
class Report:
    """What a report says. statements: the answers. notes: what a reader must know first. method: how it was found."""

    title: str
    lead: str
    statements: tuple[Statement, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    method: tuple[str, ...]
    main: Table

    @property
    def text(self) -> str:
        """The answer, the main table and the notes, as Markdown, to print."""
        lines = []
        for answer in self.statements:
            support = " ".join(answer.support[:2])
            lines.append(f"{answer.label}: {answer.verdict} {support}")
        lines += ["", to_markdown(self.main), *list_items(self.notes)]
        return "\n".join(lines)

    @property
    def data(self) -> dict[str, Any]:
        """The same for scripts: each answer in words and in numbers, and of every table the full numbers."""
        answers = []
        for statement in self.statements:
            said = {"label": statement.label, "verdict": statement.verdict, "support": list(statement.support)}
            numbers = {} if statement.answer is None else asdict(statement.answer)
            answers.append(said | {"answer": {name: plain(value) for name, value in numbers.items()} or None})
        tables = {}
        for table in self.tables:
            tables[table.name] = {"title": table.title, "rows": as_records(table.data)}
        return {"title": self.title, "lead": self.lead, "answers": answers, "notes": list(self.notes), "tables": tables}

    @property
    def tables(self) -> list[Table]:
        """All tables, the main one first."""
        found = [self.main]
        for section in self.sections:
            found.extend(section.tables)
        return found

    @property
    def plots(self) -> list[Plot]:
        """All plots."""
        found: list[Plot] = []
        for section in self.sections:
            found.extend(section.plots)
        return found

    @property
    def galleries(self) -> list[Gallery]:
        """All galleries."""
        found: list[Gallery] = []
        for section in self.sections:
            found.extend(section.galleries)
        return found


def compose_report(
    findings: Sequence[Findings], *, sensitivity: float | None = None, checklist: bool = False
) -> Report:
    """Return the report of the findings about each factor.

    sensitivity: what a decision has to reach on validation; None for Youden's threshold.
    checklist: with what the run can say to the items of TRIPOD+AI and CLAIM.
    """
    first = findings[0]
    clinical = examine_clinically(first, sensitivity)
    statements = []
    for one in findings:
        own = state_answers(one)
        if len(findings) > 1:
            label = capitalize(one.factor.label)
            own = [replace(statement, label=f"{label}, {statement.label}") for statement in own]
        statements += own
    title = title_of(findings)
    names = title.rpartition("? ")[2]
    sections = make_sections(findings, clinical)
    if checklist:
        sections.append(Section("checklist", "Reporting checklists", (checklist_table(first, clinical),)))
    return Report(
        title=title,
        lead=f"raypatch, run {names}: {count_trials(first.results)}.",
        statements=tuple(statements),
        notes=tuple(list_notes(findings)),
        sections=tuple(sections),
        method=describe_method(findings),
        main=main_table(first),
    )


def report_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    return "\n".join(_markdown(report))


def _markdown(report: Report) -> Iterator[str]:
    yield f"# {report.title}\n\n{report.lead}\n"
    for statement in report.statements:
        yield f"## {statement.label}: {statement.verdict}\n"
        yield from list_items(statement.support)
        yield ""
    yield from list_items(report.notes)
    for section in report.sections:
        yield f"\n## {section.title}\n"
        yield from map(to_markdown, section.tables)
        for plot in section.plots:
            yield f"**{plot.title}**\n\n![{plot.title}](figures/{plot.name}.png)\n\n{plot.caption}\n"
        for gallery in section.galleries:
            yield f"**{gallery.title}**\n\n{gallery.caption} The pictures are in `gallery/`.\n"
    yield "\n## Method\n"
    yield from list_items(report.method)
    yield ""


def report_latex(report: Report) -> str:
    """Return the tables for print as LaTeX."""
    parts = ["% Needs \\usepackage{booktabs} and \\usepackage{graphicx}."]
    for section in report.sections:
        for table in section.tables:
            if table.name not in NOT_IN_PRINT:
                parts.append(to_latex(table))
    return "\n".join(parts)
