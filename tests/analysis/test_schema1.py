"""Runs of version 0.1.0, which compared patch sizes alone: every number of their reports is still the same.

tests/fixtures/schema1 holds what that version wrote, without weights and checkpoints.
"""

import shutil
from pathlib import Path

import pytest

from raypatch.analysis.compare import compare_runs
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import prepare_report
from raypatch.analysis.show.tables.table import write_csv

from same_numbers import find_differences

RUNS = Path(__file__).parents[1] / "fixtures" / "schema1"
"""demo, 2D grid with three seeds, two models, search, one that is half finished; two to be compared."""


def write_numbers(report, folder):
    """Write the CSV files of a report without drawing anything."""
    for part in ("tables", "figures"):
        (folder / part).mkdir(parents=True)
    for table in report.tables:
        write_csv(table, folder / "tables" / f"{table.name}.csv")
    for section in report.sections:
        for plot in section.plots:
            plot.data.to_csv(folder / "figures" / f"{plot.name}.csv", index=False)


@pytest.mark.parametrize("name", ["old_demo", "old_grid", "old_two_models", "old_search", "old_half"])
def test_every_number_of_an_old_report_is_still_the_same(name, tmp_path):
    write_numbers(prepare_report([RUNS / name]), tmp_path / "report")
    assert find_differences(RUNS / name / "report", tmp_path / "report") == []


def test_every_number_of_an_old_comparison_is_still_the_same(tmp_path):
    old = RUNS / "old_models_a" / "report"
    for name in ("old_models_a", "old_models_b"):
        shutil.copytree(RUNS / name, tmp_path / name, ignore=shutil.ignore_patterns("report"))
    compare_runs(tmp_path / "old_models_a", tmp_path / "old_models_b", tmp_path / "new" / "compare-old_models_b")
    assert find_differences(old, tmp_path / "new") == []


def test_an_old_run_compares_patch_sizes_against_the_largest():
    (factor,) = load_study(RUNS / "old_grid").factors
    assert (factor.name, factor.names, factor.baseline) == ("patch_size", ("14", "7", "4"), "14")


def test_another_question_can_be_asked_of_an_old_run():
    report = prepare_report([RUNS / "old_two_models"], 20, compare=["model"])
    assert report.title == "Which model? old_two_models"
    assert "2D, patch size 14" in [statement.label for statement in report.statements]


def test_two_old_runs_make_one_report():
    report = prepare_report([RUNS / "old_models_a", RUNS / "old_models_b"], 20)
    assert report.title == "Which patch size? old_models_a, old_models_b"
    assert "2D, averaged over model" in [statement.label for statement in report.statements]
