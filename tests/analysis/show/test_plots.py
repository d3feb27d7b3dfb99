"""Plots: the data behind each, and that a panel becomes part of a page."""

import re
from dataclasses import replace

import numpy as np
import pytest

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_epochs, load_study
from raypatch.analysis.show.plots.figure import draw_plot, panel_svg
from raypatch.analysis.show.plots.findings import factor_plots, trial_plots
from raypatch.analysis.show.plots.style import INK, PALETTE, style_of

from made_runs import STUDIES, made_configs, write_run, write_study


def ids(svg):
    return set(re.findall(r'id="([^"]+)"', svg))


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    configs = made_configs(["breastmnist", "retinamnist", "vesselmnist3d"], [28, 14, 7], 2, epochs=5)
    return conclude(load_study(write_run(tmp_path_factory.mktemp("runs") / "made", configs, images=80)), resamples=50)


@pytest.fixture(scope="module")
def plots(findings):
    return {plot.name: plot for plot in (*factor_plots(findings), *trial_plots(findings))}


def test_score_plot_shows_means_within_their_intervals(findings, plots):
    data = plots["scores_by_patch_size"].data.set_index(["panel", "metric", "level"])
    # Three metrics of each dataset, and the kappa of the one whose classes have an order.
    assert len(data) == 3 * 3 * 3 + 3
    assert ((data["low"] <= data["mean"]) & (data["mean"] <= data["high"])).all()
    trials = findings.trials.query("dataset == 'retinamnist' and patch_size == 7")
    assert data.loc[("retinamnist", "auc", "7"), "mean"] == pytest.approx(trials["test_auc"].mean())


def test_pareto_front_is_what_nothing_cheaper_beats(plots):
    data = plots["score_against_gflops"].data
    for _, panel in data.groupby("panel"):
        for row in panel.itertuples():
            cheaper = panel[panel["gflops"] < row.gflops]
            assert row.front == (not (cheaper["score"] >= row.score).any())
    assert set(data.loc[data["kind"] == "ensemble", "level"]) == {"7+14+28"}


def test_learning_curves_are_mean_and_range_over_seeds(findings, plots):
    data = plots["learning_curves"].data.set_index(["panel", "level", "epoch"])
    epochs = load_epochs(findings.trials)
    losses = epochs.query("dataset == 'breastmnist' and level == '14' and epoch == 3")["val_loss"]
    row = data.loc[("breastmnist", "14", 3)]
    assert [row["mean"], row["low"], row["high"]] == pytest.approx([losses.mean(), losses.min(), losses.max()])


def test_confusions_are_shares_of_the_true_class(plots):
    data = plots["confusions"].data
    np.testing.assert_allclose(data.groupby(["panel", "true"])["share"].sum(), 1)


def test_reliability_leaves_out_bins_with_few_predictions(plots):
    data = plots["reliability"].data
    assert (data["predictions"] >= 0.01 * 2 * 80).all()
    assert data["accuracy"].between(0, 1).all()


def test_rank_plot_holds_every_ordered_pair(plots):
    data = plots["critical_difference"].data
    assert list(data["panel"].unique()) == ["2D, 2 datasets"]
    assert len(data) == 9
    p = data.pivot(index="first", columns="second", values="p")
    np.testing.assert_allclose(p, p.T)


def test_two_levels_have_no_rank_plot(tmp_path):
    configs = made_configs(["breastmnist", "retinamnist"], [14, 7], 2, epochs=2)
    found = conclude(load_study(write_run(tmp_path, configs, images=60)), resamples=20)
    assert found.conclusions[0].ranks is not None
    assert "critical_difference" not in {plot.name for plot in factor_plots(found)}


def test_score_against_cost_has_the_intervals_of_the_scores(plots):
    data, scores = plots["score_against_gflops"].data, plots["scores_by_patch_size"].data
    own = scores[scores["metric"] == "balanced_accuracy"].set_index(["panel", "level"])
    single = data[data["kind"] == "single"].set_index(["panel", "level"])
    np.testing.assert_allclose(single[["low", "high"]], own.loc[single.index, ["low", "high"]])
    first = draw_plot(plots["score_against_gflops"]).axes[0]
    assert [container.has_yerr for container in first.containers] == [True, True]


def test_a_difference_of_less_than_a_point_does_not_fill_the_axis(plots):
    plot = plots["scores_by_patch_size"]
    same = plot.data.assign(mean=0.9 + 0.001 * plot.data["level_rank"], low=0.9, high=0.902)
    low, high = draw_plot(replace(plot, data=same)).axes[0].get_ylim()
    assert high - low >= 5
    plot = plots["score_against_gflops"]
    same = plot.data.assign(score=0.9, low=0.9, high=0.9)
    low, high = draw_plot(replace(plot, data=same)).axes[0].get_ylim()
    assert high - low >= 5
    plot = plots["cost_by_patch_size"]
    same = plot.data.assign(value=3.0 + 0.001 * plot.data["level_rank"])
    low, high = draw_plot(replace(plot, data=same)).axes[0].get_ylim()
    assert high / low == pytest.approx(2)


def test_every_cost_line_names_its_dataset(plots):
    plot = plots["cost_by_patch_size"]
    names = [label for label, _, _ in plot.lines]
    assert names == ["breastmnist", "retinamnist", "vesselmnist3d"]
    assert len({(colour, marker) for _, colour, marker in plot.lines}) == 3
    assert plot.data.groupby("dataset")["place"].first().to_dict() == {name: names.index(name) for name in names}


def test_cost_plot_has_time_speed_and_memory_of_each_dimension(plots):
    panels = plots["cost_by_patch_size"].panels
    assert list(panels)[:3] == ["2D: training time", "2D: training speed", "2D: peak memory"]
    assert len(panels) == 6


def test_panels_stand_in_the_order_of_the_tables(plots):
    for name in ("scores_by_patch_size", "score_against_gflops", "learning_curves", "reliability"):
        assert list(plots[name].panels) == ["breastmnist", "retinamnist", "vesselmnist3d"]


def test_every_plot_draws_one_axes_per_panel(plots):
    for plot in plots.values():
        drawn = [axes for axes in draw_plot(plot).axes if axes.axison or axes.get_title()]
        assert [axes.get_title() for axes in drawn if axes.get_title()] == list(plot.panels)


def test_panel_in_a_page_takes_the_pages_colour_and_keeps_its_ids_to_itself(plots):
    plot = plots["score_against_gflops"]
    one, other = [panel_svg(plot, name, data) for name, data in list(plot.panels.items())[:2]]
    assert one.startswith("<svg ")
    assert 'aria-label="Score against cost: breastmnist"' in one
    assert INK not in one
    assert "currentColor" in one
    assert "<style" not in one
    assert not ids(one) & ids(other)


def test_same_data_give_the_same_panel(plots):
    plot = plots["learning_curves"]
    name, data = next(iter(plot.panels.items()))
    assert panel_svg(plot, name, data) == panel_svg(plot, name, data)


def test_lines_differ_in_colour_and_in_marker():
    styles = [style_of(place) for place in range(len(PALETTE))]
    assert len({colour for colour, _ in styles}) == len({marker for _, marker in styles}) == len(PALETTE)


def test_long_names_of_levels_do_not_overlap(tmp_path):
    study = STUDIES["backbones"]
    grid = study["grid"] | {"dataset": ["breastmnist"], "seed": [0, 1]}
    run = write_study(tmp_path, study | {"grid": grid}, images=60, epochs=2)
    found = conclude(load_study(run), resamples=20)
    plot = next(plot for plot in factor_plots(found) if plot.name == "scores_by_backbone")
    figure = draw_plot(plot)
    figure.canvas.draw()
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {30.0}
    assert figure.axes[0].lines[0].get_linestyle() == "None"
