"""The plots over the datasets: what each shows, and that a plot without data is none."""

import pandas as pd
import pytest

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.show.plots.figure import draw_plot
from raypatch.analysis.show.plots.standings import standing_plots
from raypatch.analysis.show.tables.comparison import ranks_table, say_reach
from raypatch.analysis.show.tables.standings import averages_table, quartiles_table, rank_counts_table, steps_table
from raypatch.analysis.show.tables.table import to_markdown
from raypatch.analysis.statistics.ranks import compare_ranks

from made_runs import GRID, made_configs, write_run

FLAT = [*GRID[:5], "octmnist", "pathmnist"]


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    configs = made_configs(FLAT, [14, 7, 4], 2, epochs=2)
    return conclude(load_study(write_run(tmp_path_factory.mktemp("runs") / "made", configs, images=120)), resamples=20)


@pytest.fixture(scope="module")
def plots(findings):
    return {plot.name: plot for plot in standing_plots(findings)}


def test_a_box_holds_every_dataset_of_its_level(findings, plots):
    data = plots["boxes_by_patch_size"].data
    assert data.groupby("level").size().to_dict() == {"14": 7, "7": 7, "4": 7}
    cells = findings.cells.query("dataset == 'bloodmnist' and level == '7'")
    own = data[(data["dataset_label"] == "bloodmnist") & (data["level"] == "7")]
    assert own["score"].item() == pytest.approx(cells["test_balanced_accuracy_mean"].item())


def test_the_matrix_holds_both_sides_of_each_pair(plots):
    data = plots["significance_by_patch_size"].data.set_index(["first", "second"])
    assert len(data) == 6
    for first, second in data.index:
        assert data.loc[(first, second), "gain"] == -data.loc[(second, first), "gain"]
        assert data.loc[(first, second), "p_holm"] == data.loc[(second, first), "p_holm"]


def test_the_curve_is_to_scale_and_opens_with_the_mean_over_the_datasets(findings, plots):
    plot = plots["curve_by_patch_size"]
    assert list(plot.panels)[:2] == ["2D, mean over datasets", "bloodmnist"]
    mean = plot.panels["2D, mean over datasets"].set_index("value")["mean"]
    cells = findings.cells[findings.cells["level"] == "4"]
    assert mean[4.0] == pytest.approx(cells["test_balanced_accuracy_mean"].mean())


def test_every_plot_can_be_drawn(plots):
    for plot in plots.values():
        assert draw_plot(plot).axes


def test_every_table_can_be_shown(findings):
    for make in (averages_table, quartiles_table, rank_counts_table, steps_table):
        table = make(findings)
        assert table is not None
        assert len(table.data)
        assert {len(row) for block in table.blocks for row in block} == {len(table.columns)}
        assert table.title in to_markdown(table)
    ranks = ranks_table(findings, findings.conclusions[0])
    assert ranks is not None
    assert "smallest p is 0.016." in ranks.note


def test_a_matrix_that_could_never_be_significant_is_not_drawn_and_that_is_said(tmp_path):
    run = write_run(tmp_path, made_configs(FLAT[:5], [14, 7, 4], 2, epochs=2), images=120)
    found = conclude(load_study(run), resamples=20)
    assert "significance_by_patch_size" not in {plot.name for plot in standing_plots(found)}
    ranks = ranks_table(found, found.conclusions[0])
    assert ranks is not None
    assert "with 5 datasets its smallest p is 0.062, too large to call a difference of one pair among 3" in ranks.note


def test_of_one_dataset_no_table_speaks(tmp_path):
    found = conclude(load_study(write_run(tmp_path, made_configs(FLAT[:1], [14, 7], 2), images=120)), resamples=20)
    assert not list(standing_plots(found))
    for make in (averages_table, quartiles_table, rank_counts_table, steps_table):
        assert make(found) is None


def test_equal_scores_are_told(findings):
    scores = pd.DataFrame({"a": [0.5, 0.6, 0.7], "b": [0.5, 0.7, 0.8]})
    said = say_reach(compare_ranks(scores))
    assert said.endswith("too large to call a difference significant, however clear it is.")
