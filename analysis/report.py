"""Everything a run folder shows, written as files: tables as Markdown, CSV and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raypatch.analysis.cells import select_recipes
from raypatch.analysis.ensembles import patch_ensembles
from raypatch.analysis.frames import METRICS, load_study
from raypatch.analysis.render import to_latex, to_markdown, write_csv
from raypatch.analysis.tables import main_table, metric_table, summarize_cells
from raypatch.files import write_atomically
from raypatch.results import SweepPaths

FORMATS = ("html", "md", "latex")


@dataclass(frozen=True)
class ReportFiles:
    """What was written. text: the main table and what is missing, as Markdown, to print."""

    folder: Path
    files: tuple[Path, ...]
    text: str


def write_report(runs: Sequence[Path], out: Path | None = None, formats: Sequence[str] = FORMATS) -> ReportFiles:
    """Write the report of one or several runs, finished or not, to `out` (default: report/ in the first run).

    Raises ValueError for an unknown format, a folder that is no run folder, or runs without any finished trial.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ValueError(f"unknown format {', '.join(unknown)}; use some of {', '.join(FORMATS)}")
    study = load_study(*runs)
    trials = select_recipes(study.trials)
    if trials.empty:
        problems = "".join(f"\n- {problem}" for problem in study.problems)
        raise ValueError(f"no finished trial in {', '.join(map(str, runs))}; run `raypatch run` first{problems}")
    cells = summarize_cells(trials, patch_ensembles(trials))
    tables = [main_table(cells)]
    for _, part in cells.groupby("dimensions"):
        tables += [metric_table(part, metric) for metric in METRICS]
    folder = out or SweepPaths(Path(runs[0])).report
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for table in tables:
        write_csv(table, folder / f"{table.name}.csv")
        files.append(folder / f"{table.name}.csv")
    if "md" in formats:
        files.append(folder / "report.md")
        write_atomically(files[-1], "\n".join(map(to_markdown, tables)).encode())
    if "latex" in formats:
        files.append(folder / "tables.tex")
        write_atomically(files[-1], "\n".join(map(to_latex, tables)).encode())
    missing = [f"\n{len(study.missing)} planned trials have no result yet.\n"] if len(study.missing) else []
    notes = [f"\nLeft out: {problem}\n" for problem in study.problems]
    return ReportFiles(folder, tuple(files), "".join([to_markdown(tables[0]), *missing, *notes]))
