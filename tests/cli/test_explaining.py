"""explain on the command line: what it prints, where it writes, and what it refuses."""

import pytest

from raypatch.config import RunOptions
from raypatch.predict import find_trials
from raypatch.sweep.run import ExecutorOptions, run_sweep

from tiny import make_images, tiny_study


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explaining")
    study = tiny_study(make_images(folder / "own.npz"), fixed={"epochs": 1, "image_size": 16})
    run_sweep(study, folder / "run", RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return folder / "run"


def test_it_prints_the_measures_and_says_where_the_maps_are(raypatch, run):
    code, out, err = raypatch("explain", str(run), "--images", "6", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "Do the maps find what decides?" in out
    assert "- own has no test_masks" in out
    assert f"written to {run / 'explain'}; `raypatch report {run}` shows the maps" in out
    # A line for each level, the coarse one first, as the study has them.
    assert out.index("patch size 8, 6 images") < out.index("patch size 4, 6 images")


def test_levels_and_a_trial_can_be_named(raypatch, run):
    trial = find_trials(run).trials[0].result.trial_id
    for words in (("--patch-size", "4"), ("--level", "patch size 4"), ("--trial", trial)):
        code, out, _ = raypatch("explain", str(run), *words, "--images", "2", "--device", "cpu", "--with-class-token")
        assert (code, out.count("2 images")) == (0, 1)


def test_data_that_was_moved_is_found_by_its_path(raypatch, run, tmp_path):
    lies = run.parent / "own.npz"
    moved = lies.rename(tmp_path / "elsewhere.npz")
    try:
        code, _, err = raypatch("explain", str(run), "--images", "2", "--device", "cpu")
        assert code == 2
        assert "own.npz" in err
        code, _, err = raypatch("explain", str(run), "--images", "2", "--device", "cpu", "--data", str(moved))
        assert (code, err) == (0, "")
    finally:
        moved.rename(lies)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--images", "13"), "--images 13: the test split of own has 12; give 1 to 12, or leave it out"),
        (("--images", "0"), "give 1 to 12"),
        (("--level", "5"), "'5' is no patch size of this study; it has 8, 4"),
        (("--trial", "x"), "no finished trial 'x'"),
        (("--trial", "x", "--level", "4"), "give one of them"),
        (("--dataset", "derma"), "no finished trial of dermamnist"),
    ],
)
def test_what_cannot_be_explained_is_refused(raypatch, run, words, said):
    code, _, err = raypatch("explain", str(run), *words, "--device", "cpu")
    assert (code, said in err) == (2, True), err


def test_a_folder_without_trials(raypatch, tmp_path):
    code, _, err = raypatch("explain", str(tmp_path), "--device", "cpu")
    assert code == 2
    assert "no finished trial" in err
