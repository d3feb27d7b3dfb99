"""Everything a run folder shows, written as files: a page, Markdown, LaTeX tables, figures, and all numbers as CSV."""

from collections.abc import Sequence
from pathlib import Path

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import Results, load_study
from raypatch.analysis.report_parts import Report, compose_report, report_latex, report_markdown
from raypatch.analysis.show.page.page import render_page
from raypatch.analysis.show.plots.figure import on_all_cores, save_plot
from raypatch.analysis.show.tables.table import write_csv
from raypatch.analysis.statistics.draws import RESAMPLES
from raypatch.analysis.written import Written
from raypatch.results import SweepPaths
from raypatch.storage.files import write_atomically

FORMATS = ("html", "md", "latex")


def prepare_report(
    runs: Sequence[Path | str],
    resamples: int = RESAMPLES,
    *,
    compare: Sequence[str] | None = None,
    without_twins: bool = False,
    sensitivity: float | None = None,
    checklist: bool = False,
) -> Report:
    """Return the report of one or several runs, finished or not; compare: factors to ask about instead of the study's.

    sensitivity: what decisions have to reach on validation, above 0 and at most 1. checklist: add
    what the run can say to TRIPOD+AI and CLAIM. Raises ValueError for a folder that is no run
    folder, for runs without any finished trial, for runs that compare different things, and for a
    factor that cannot be compared.
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity {sensitivity:g}: it must be above 0 and at most 1, such as 0.95")
    results = load_study(*runs, compare=compare, without_twins=without_twins)
    _require_results(results, runs)
    findings = [conclude(results, factor, resamples) for factor in results.factors]
    return compose_report(findings, sensitivity=sensitivity, checklist=checklist)


def write_report(
    runs: Sequence[Path | str],
    out: Path | None = None,
    formats: Sequence[str] = FORMATS,
    *,
    compare: Sequence[str] | None = None,
    without_twins: bool = False,
    sensitivity: float | None = None,
    checklist: bool = False,
) -> Written:
    """Write the report of one or several runs, finished or not, to `out` (default: report/ in the first run).

    Always written: tables/*.csv, figures/*.{csv,svg,pdf,png} and, of a run that was explained,
    gallery/*.jpg. html: report.html. md: report.md.
    latex: tables.tex. compare: factors to ask about instead of the study's. without_twins: leave
    out test images that repeat one of train or val. sensitivity: what decisions have to reach on
    validation. checklist: add what the run can say to TRIPOD+AI and CLAIM. Raises ValueError for an
    unknown format, a folder that cannot be written, and what `prepare_report` raises it for.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise ValueError(f"unknown format {', '.join(unknown)!r}; use some of {', '.join(FORMATS)}")
    report = prepare_report(
        runs, compare=compare, without_twins=without_twins, sensitivity=sensitivity, checklist=checklist
    )
    texts = {}
    if "html" in formats:
        texts["report.html"] = render_page(report)
    if "md" in formats:
        texts["report.md"] = report_markdown(report)
    if "latex" in formats:
        texts["tables.tex"] = report_latex(report)
    folder = out or SweepPaths(Path(runs[0])).report
    try:
        files = write_files(folder, texts, report)
    except OSError as error:
        raise ValueError(
            f"cannot write the report to {folder}: {error.strerror or error}; give another --out"
        ) from error
    return Written(folder, tuple(files), report.text, report.data)


def _require_results(results: Results, runs: Sequence[Path | str]) -> None:
    trials, missing = results.trials, results.missing
    if (trials["status"] == "ok").any():
        return
    reasons = []
    if len(missing):
        reasons.append(f"{len(missing)} planned trials have no result")
    reasons += map(str, results.problems)
    errors = trials.loc[trials["status"] == "failed", "error"]
    for error, count in errors.value_counts().items():
        reasons.append(f"{count} failed: {error}")
    raise ValueError(
        f"nothing to report: no finished trial in {', '.join(map(str, runs))};"
        f" continue it with `raypatch resume`. {'; '.join(reasons)}"
    )


def write_files(folder: Path, texts: dict[str, str], report: Report) -> list[Path]:
    """Write the texts, the tables and the plots; return the files in that order."""
    files = []
    for part in ("tables", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        write_atomically(path, text.encode())
        files.append(path)
    for table in report.tables:
        path = folder / "tables" / f"{table.name}.csv"
        write_csv(table, path)
        files.append(path)
    # A process that draws may be one of an earlier report, which began in another working directory.
    figures = (folder / "figures").absolute()
    calls = []
    panels = 0
    for plot in report.plots:
        calls.append((plot, figures))
        panels += len(plot.panels)
    for written in on_all_cores(save_plot, calls, panels=panels):
        files += [folder / "figures" / file.name for file in written]
    for gallery in report.galleries:
        (folder / "gallery").mkdir(exist_ok=True)
        for name, content in gallery.files().items():
            write_atomically(folder / "gallery" / name, content)
            files.append(folder / "gallery" / name)
    return files
