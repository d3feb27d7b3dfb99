"""Tables: what is marked, what is printed, and that it holds in Markdown and LaTeX."""

import math
import shutil
import subprocess
from dataclasses import replace

import pandas as pd
import pytest

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.show.tables.comparison import gains_table
from raypatch.analysis.show.tables.details import costs_table
from raypatch.analysis.show.tables.latex import PAGE_POINTS, column_points, split_columns, to_latex
from raypatch.analysis.show.tables.scores import main_table, metric_table, recipes_table
from raypatch.analysis.show.tables.table import Cell, Table, to_markdown, write_csv
from raypatch.analysis.wording import points, significant
from raypatch.tasks import find_metric

from made_runs import made_configs, write_run

AUC = find_metric("auc")


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    configs = made_configs(["breastmnist", "vesselmnist3d"], [14, 7, 4], 3, epochs=2)
    configs += made_configs(["retinamnist"], [14], 1, epochs=2)
    return conclude(load_study(write_run(tmp_path_factory.mktemp("runs") / "made", configs)), resamples=20)


def test_every_recipe_has_a_row_where_hyperparameters_were_tuned(tmp_path):
    configs = made_configs(["breastmnist"], [14], 2) + made_configs(["breastmnist"], [14], 2, lr=3e-4)
    found = conclude(load_study(write_run(tmp_path, configs, images=40)), resamples=20)
    table = recipes_table(found)
    assert len(table.data) == 2
    assert "| Learning rate |" in to_markdown(table)


def test_a_setting_has_a_column_of_its_own(tmp_path):
    configs = [c for p in ("finetune", "linear_probe") for c in made_configs(["breastmnist"], [14, 7], 2, method=p)]
    found = conclude(load_study(write_run(tmp_path, configs, images=60)), resamples=20)
    assert len(main_table(found).blocks) == 2
    assert metric_table(found, found.cells, AUC).columns == ("Dataset", "Training method", "14", "7", "7+14")


def test_costs_that_do_not_differ_are_not_shown(tmp_path):
    configs = [c for p in ("finetune", "linear_probe") for c in made_configs(["breastmnist"], [14], 2, method=p)]
    results = load_study(write_run(tmp_path, configs, images=60), compare=["method"])
    found = conclude(results, resamples=20)
    assert len(metric_table(found, found.cells, AUC).blocks) == 1


def test_ensemble_stands_beneath_its_dataset(findings):
    table = main_table(findings)
    block = next(block for block in table.blocks if block[0][0].text == "breastmnist")
    assert [row[1].text for row in block] == ["14", "7", "4", "4+7+14"]


def test_wide_table_has_a_column_per_level_and_gaps_where_nothing_ran(findings):
    cells = findings.cells
    table = metric_table(findings, cells[cells["dimensions"] == 2], AUC)
    assert table.columns == ("Dataset", "14", "7", "4", "4+7+14")
    rows, (gflops,) = table.blocks
    retina = next(row for row in rows if row[0].text == "retinamnist")
    assert retina[1].best
    assert [cell.text for cell in retina[2:]] == ["", "", ""]
    assert [cell.text for cell in gflops[:3]] == ["GFLOPs", "0.215", "0.729"]


def test_a_level_is_not_compared_with_itself(findings):
    conclusion = findings.conclusions[0]
    gains = conclusion.gains.assign(chosen=conclusion.gains["baseline"])
    table = gains_table(findings, replace(conclusion, gains=gains))
    for row in table.blocks[0]:
        assert [cell.text for cell in row[4:10]] == ["–"] * 6
    gains = conclusion.gains.assign(best=conclusion.gains["baseline"], best_gain=0.0)
    table = gains_table(findings, replace(conclusion, gains=gains))
    assert {row[10].text for row in table.blocks[0]} == {"– (14)"}


def test_cost_rows_name_their_dataset_or_how_many_they_are_the_mean_of(findings):
    table = costs_table(findings)
    assert {row[0].text for row in table.blocks[0]} == {"mean of 2, 2D", "breastmnist, 2D"}
    assert {row[0].text for row in table.blocks[1]} == {"vesselmnist3d, 3D"}
    assert "2D: over breastmnist, retinamnist" in table.note


def test_csv_holds_the_full_numbers(findings, tmp_path):
    table = main_table(findings)
    write_csv(table, tmp_path / "main.csv")
    found = pd.read_csv(tmp_path / "main.csv", dtype={"level": str})
    pd.testing.assert_frame_equal(found, table.data, check_dtype=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.08676, "0.0868"), (9.083, "9.08"), (255.51, "256"), (9815.3, "9815"), (math.nan, "–"), (0, "0")],
)
def test_figures_are_shown_without_exponent(value, shown):
    assert significant(value) == shown


def test_differences_have_a_sign_unless_they_round_to_nothing():
    assert [points(value) for value in (0.0934, -0.012, -0.0001, math.nan)] == ["+9.3", "−1.2", "0.0", "–"]


def test_markdown_cells_cannot_break_the_table():
    table = Table("t", "T", ("a|b", "n"), (((Cell("x|y"), Cell("1", best=True)),),))
    lines = to_markdown(table).splitlines()
    assert lines[2] == "| a\\|b |     n |"
    assert lines[4] == "| x\\|y | **1** |"


def test_long_latex_table_goes_on_in_the_next_without_losing_a_row():
    blocks = tuple(((Cell(f"row {block} {row}"), Cell("1")),) for block in range(3) for row in range(30))
    latex = to_latex(Table("long", "Long", ("a", "b"), (*blocks, ((Cell("last"), Cell("1")),) * 50)))
    assert latex.count("\\begin{table}") == latex.count("\\caption") == 5
    assert latex.count("(continued)") == 4
    assert all(latex.count(f"row {block} {row} ") == 1 for block in range(3) for row in range(30))
    assert latex.count("last") == 50


def test_wide_latex_table_is_cut_between_columns_and_keeps_its_names():
    row = (Cell("breastmnist"), *(Cell(f"{place}0.0 ± 1.2 (80.1–90.9)") for place in range(9)))
    table = Table("wide", "Wide", ("Dataset", *map(str, range(9))), ((row, row),), note="What it is.")
    pieces = list(split_columns(table, PAGE_POINTS))
    assert [piece.columns[0] for piece in pieces] == ["Dataset"] * len(pieces)
    shown = [column for piece in pieces for column in piece.columns[1:]]
    assert shown == list(map(str, range(9)))
    for piece in pieces:
        assert sum(column_points(piece)) <= PAGE_POINTS
        assert piece.blocks[0][0][1:] == tuple(row[1 + int(column)] for column in piece.columns[1:])
    latex = to_latex(table)
    assert latex.count("\\begin{table") == len(pieces) > 1
    assert latex.count("What it is.") == 1


def test_long_names_are_broken_into_lines_and_leave_room_for_fewer_rows():
    name = "vit_small_patch16_224 + vit_tiny_patch16_224"
    table = Table("names", "Names", ("Model", "n"), (((Cell(name), Cell("1")),) * 60,))
    latex = to_latex(table)
    assert "p{100pt}" in latex
    assert sum(column_points(table)) < 150
    assert latex.count("\\begin{table") == 5  # 13 rows of three lines each


def test_narrow_latex_table_stands_in_one_column():
    latex = to_latex(Table("narrow", "Narrow", ("a", "b"), (((Cell("x"), Cell("1")),),)))
    assert "\\begin{table}" in latex
    assert "\\end{table}" in latex


@pytest.mark.slow
def test_latex_tables_compile(findings, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    cells = findings.cells
    odd = Table(
        "odd", "50 % & _ # $ { } ~ ^ \\ ± × – < >", ("A_b", "n"), (((Cell("α_1 & x"), Cell("1²", best=True)),),)
    )
    long = Table("long", "Long", ("a", "b"), (((Cell("x"), Cell("1")),) * 30, ((Cell("y"), Cell("2")),) * 90))
    tables = [main_table(findings), metric_table(findings, cells[cells["dimensions"] == 2], AUC), odd, long]
    body = "\n".join(map(to_latex, tables))
    document = (
        f"\\documentclass{{article}}\n\\usepackage{{booktabs,graphicx}}\n\\begin{{document}}\n{body}\\end{{document}}\n"
    )
    (tmp_path / "t.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-2000:]
    assert "Missing character" not in answer.stdout
    assert "Overfull \\hbox" not in answer.stdout
    assert "too large for page" not in answer.stdout
