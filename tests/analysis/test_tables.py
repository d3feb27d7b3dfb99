"""Tables: what is averaged, what is marked, what is printed."""

import math
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from raypatch.analysis.answer.cells import recipe_fields, select_recipes
from raypatch.analysis.answer.findings import Answer
from raypatch.analysis.answer.sentences import _how_sure
from raypatch.analysis.load import load_trials
from raypatch.analysis.show.render import Cell, Table, percent, points, significant, to_latex, to_markdown, write_csv
from raypatch.analysis.show.tables import main_table, mark_best, metric_table, summarize_cells
from raypatch.analysis.statistics.ensembles import patch_ensembles

from made_runs import made_config, made_configs, write_run


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    configs = made_configs(["breastmnist", "vesselmnist3d"], [14, 7, 4], 3, epochs=2)
    configs += made_configs(["retinamnist"], [14], 1, epochs=2)
    return load_trials(write_run(tmp_path_factory.mktemp("runs") / "made", configs))


def test_recipe_fields_are_those_that_differ_within_a_cell(tmp_path):
    configs = made_configs(["breastmnist", "vesselmnist3d"], [14, 7], 2)
    assert recipe_fields(load_trials(write_run(tmp_path / "one", configs, images=0))) == []
    configs += made_configs(["breastmnist"], [14], 2, lr=3e-4)
    assert recipe_fields(load_trials(write_run(tmp_path / "two", configs, images=0))) == ["lr"]


def test_mean_and_sample_deviation_over_seeds(trials):
    cells = summarize_cells(trials).set_index(["dataset", "patch_size"])
    values = trials.query("dataset == 'breastmnist' and patch_size == 7")["test_auc"]
    cell = cells.loc[("breastmnist", 7)]
    assert cell["seeds"] == 3
    assert cell["test_auc_mean"] == pytest.approx(np.mean(values))
    assert cell["test_auc_std"] == pytest.approx(np.std(values, ddof=1))


def test_one_seed_has_no_deviation(trials):
    cell = summarize_cells(trials).query("dataset == 'retinamnist'").iloc[0]
    assert math.isnan(cell["test_auc_std"])
    assert percent(cell["test_auc_mean"], cell["test_auc_std"]) == f"{100 * cell['test_auc_mean']:.1f}"


def test_figure_undefined_for_one_seed_is_undefined_for_the_cell(trials):
    damaged = trials.copy()
    damaged.loc[trials.query("dataset == 'breastmnist' and patch_size == 7").index[0], "test_auc"] = math.nan
    cells = summarize_cells(damaged).set_index(["dataset", "patch_size"])
    assert math.isnan(cells.loc[("breastmnist", 7), "test_auc_mean"])
    assert "–" in to_markdown(main_table(cells.reset_index()))


def test_trials_of_different_recipes_are_never_averaged(tmp_path):
    configs = made_configs(["breastmnist"], [14], 2) + made_configs(["breastmnist"], [14], 2, lr=3e-4)
    found = load_trials(write_run(tmp_path, configs, images=0))
    cells = summarize_cells(found)
    assert list(cells["lr"]) == [1e-4, 3e-4]
    assert list(cells["seeds"]) == [2, 2]
    assert "| lr " in to_markdown(main_table(cells))


def test_a_factor_of_the_study_makes_series_of_their_own(tmp_path):
    configs = [c for p in ("finetune", "linear_probe") for c in made_configs(["breastmnist"], [14, 7], 2, method=p)]
    found = load_trials(write_run(tmp_path, configs))
    assert len(select_recipes(found)) == len(found)
    cells = summarize_cells(found, patch_ensembles(found))
    assert cells.groupby("method").size().to_dict() == {"finetune": 3, "linear_probe": 3}
    assert len(main_table(cells).blocks) == 2
    assert metric_table(cells, "auc").columns == ("Dataset", "method", "14", "7", "7+14")


def test_hyperparameters_are_chosen_by_validation_never_by_test(tmp_path):
    configs = [c for lr in (1e-4, 2e-4, 3e-4) for c in made_configs(["breastmnist"], [14, 7], 2, lr=lr)]
    configs.append(made_config("breastmnist", 14, 7, lr=9e-4))
    found = load_trials(write_run(tmp_path, configs, images=0))
    found.loc[found["lr"] == 2e-4, "val_loss"] = 0.01
    found.loc[found["lr"] == 3e-4, "test_auc"] = 1.0
    found.loc[found["lr"] == 9e-4, "val_loss"] = 0.001
    chosen = select_recipes(found)
    assert set(chosen["lr"]) == {2e-4}
    assert len(chosen) == 4


def test_best_single_is_marked_and_the_ensemble_only_above_it():
    means = pd.Series([0.8, 0.9, math.nan, 0.9, 0.95])
    single = pd.Series([True, True, True, True, False])
    assert list(mark_best(means, single)) == [False, True, False, True, True]
    assert not mark_best(pd.Series([0.9, 0.85]), pd.Series([True, False]))[1]
    assert not mark_best(pd.Series([math.nan]), pd.Series([True])).any()


def test_ensemble_stands_beneath_its_dataset(trials):
    table = main_table(summarize_cells(trials, patch_ensembles(trials)))
    block = next(block for block in table.blocks if block[0][0].text == "breastmnist")
    assert [row[1].text for row in block] == ["14", "7", "4", "4+7+14"]


def test_wide_table_has_a_column_per_patch_size_and_gaps_where_nothing_ran(trials):
    cells = summarize_cells(trials, patch_ensembles(trials))
    table = metric_table(cells[cells["dimensions"] == 2], "auc")
    assert table.columns == ("Dataset", "14", "7", "4", "4+7+14")
    rows, (gflops,) = table.blocks
    retina = next(row for row in rows if row[0].text == "retinamnist")
    assert retina[1].best
    assert [cell.text for cell in retina[2:]] == ["", "", ""]
    assert [cell.text for cell in gflops[:3]] == ["GFLOPs", "0.215", "0.729"]


def test_csv_holds_the_full_numbers(trials, tmp_path):
    table = main_table(summarize_cells(trials))
    write_csv(table, tmp_path / "main.csv")
    found = pd.read_csv(tmp_path / "main.csv", dtype={"patch": str})
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


@pytest.mark.slow
def test_latex_tables_compile(trials, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    cells = summarize_cells(trials, patch_ensembles(trials))
    odd = Table(
        "odd", "50 % & _ # $ { } ~ ^ \\ ± × – < >", ("A_b", "n"), (((Cell("α_1 & x"), Cell("1²", best=True)),),)
    )
    long = Table("long", "Long", ("a", "b"), (((Cell("x"), Cell("1")),) * 30, ((Cell("y"), Cell("2")),) * 90))
    tables = [main_table(cells), metric_table(cells[cells["dimensions"] == 2], "auc"), odd, long]
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


@pytest.mark.parametrize(
    ("datasets", "better", "worse", "said"),
    [
        (1, 1, 0, "significant"),
        (1, 0, 1, "significant"),
        (1, 0, 0, "not significant"),
        (3, 2, 0, "significantly better in 2 of 3 datasets"),
        (3, 1, 1, "significantly better in 1 and worse in 1 of 3 datasets"),
    ],
)
def test_a_clear_loss_is_told_as_one(datasets, better, worse, said):
    answer = Answer(
        datasets=("a", "b", "c")[:datasets],
        sizes=(14, 7),
        baseline=14,
        chosen=7,
        frugal=7,
        gain=(-0.08, -0.08, -0.08),
        better=better,
        worse=worse,
        tested=datasets,
        cost=3.4,
        seconds=2.5,
        frugal_gain=-0.08,
        frugal_cost=3.4,
    )
    assert _how_sure(answer) == said
