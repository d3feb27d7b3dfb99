"""A run's best model on data of another source: every score beside the internal one, and how much it drops."""

from pathlib import Path

from raypatch.analysis.external.classes import evaluate_classes
from raypatch.analysis.external.masks import evaluate_masks
from raypatch.analysis.external.scores import Asked
from raypatch.analysis.report import write_files
from raypatch.analysis.report_parts import report_latex, report_markdown
from raypatch.analysis.show.page.page import render_page
from raypatch.analysis.written import Written
from raypatch.predict import choose_members, find_trials, open_source, seeds_of
from raypatch.tasks import reads_masks

__all__ = ["Asked", "evaluate_external"]


def evaluate_external(run: Path, asked: Asked, out: Path | None = None) -> Written:
    """Test the best model of a run, all its seeds, on labelled data of another source; write a report.

    out: default external/NAME in the run folder. Written: report.html, report.md, tables.tex,
    tables/*.csv, predictions.csv; where images repeat those of the run, repeats.csv. Of classes
    also figures and, where patients are known, patients.csv; of masks gallery/*.jpg. Raises
    ValueError for data without labels or masks and for classes that are none of the model's.
    """
    found = find_trials(run)
    (best,) = choose_members(found, asked.dataset, [asked.level] if asked.level else None)
    # Seeds whose weights were removed cannot predict.
    members = [member for member in seeds_of(best, found) if member.paths.best_weights.exists()] or [best]
    source = open_source(asked.data, asked.split, best.dataset, asked.columns)
    evaluate = evaluate_masks if reads_masks(best.dataset.task) else evaluate_classes
    tested = evaluate(run, asked, members, source)
    report = tested.report
    texts = {
        "report.html": render_page(report),
        "report.md": report_markdown(report),
        "tables.tex": report_latex(report),
        **tested.tables,
    }
    if tested.seen.twins:
        texts["repeats.csv"] = tested.seen.pairs(source.names)
    folder = out or run / "external" / asked.data.stem
    try:
        files = write_files(folder, texts, report)
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror or error}; give another --out") from error
    return Written(folder, tuple(files), report.text, report.data)
