"""evaluate and export on the command line: what they print, and what they refuse."""

import numpy as np
import pytest

from raypatch.config import RunOptions
from raypatch.predict import find_trials
from raypatch.sweep.run import ExecutorOptions, run_sweep

from tiny import make_images, tiny_study


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing")
    data = make_images(folder / "own.npz")
    run_sweep(
        tiny_study(data, patch_size=[8], fixed={"epochs": 1}),
        folder / "run",
        RunOptions(device="cpu", threads=1),
        ExecutorOptions(executor="local"),
    )
    return folder


def test_a_model_goes_out_with_its_card(raypatch, run, tmp_path):
    trial = find_trials(run / "run").trials[0].result.trial_id
    code, out, _ = raypatch("export", str(run / "run"), "--trial", trial, "--out", str(tmp_path / "m"), "--card")
    assert code == 0
    assert "README.md" in out
    assert {path.name for path in (tmp_path / "m").iterdir()} >= {"README.md", "card.html", "model.safetensors"}


def test_a_model_that_is_not_named_is_the_one_that_predicts(raypatch, run, tmp_path):
    words = ("export", str(run / "run"), "--out", str(tmp_path / "m"))
    code, out, _ = raypatch(*words)
    trial = find_trials(run / "run").trials[0].result.trial_id
    assert (code, f"{trial}: its level has the best mean" in out) == (0, True)
    code, _, err = raypatch(*words, "--level", "3")
    assert (code, "patch size" in err) == (2, True)


def test_results_go_out_without_weights(raypatch, run, tmp_path):
    code, out, _ = raypatch("export", str(run / "run"), "--all-results", "--out", str(tmp_path / "r"))
    assert code == 0
    assert "no weights, no images" in out
    assert not list((tmp_path / "r").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trial", "x", "--all-results"), "give one or the other"),
        (("--all-results", "--card"), "give one or the other"),
        (("--trial", "x", "--level", "8"), "--trial names one model"),
        (("--trial", "x"), "no finished trial 'x'; it has"),
        (("--trial", "x", "--with-names"), "belongs to --all-results"),
    ],
)
def test_what_does_not_go_together_is_refused(raypatch, run, words, said):
    code, _, err = raypatch("export", str(run / "run"), *words)
    assert (code, said in err) == (2, True)


def test_an_external_test_prints_the_drop(raypatch, run, tmp_path):
    with np.load(run / "own.npz") as stored:
        np.savez(tmp_path / "new.npz", test_images=stored["train_images"], test_labels=stored["train_labels"])
    words = ("evaluate", str(run / "run"), "--data", str(tmp_path / "new.npz"), "--device", "cpu")
    code, out, _ = raypatch(*words, "--out", str(tmp_path / "out"))
    assert code == 0
    assert "95 % interval" in out
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rename", "a"), "must be THEIRS=OURS"),
        (("--sensitivity", "2"), "above 0 and at most 1"),
        (("--columns", "colour=x"), "ROLE=COLUMN"),
    ],
)
def test_an_external_test_asked_wrongly_is_refused(raypatch, run, words, said):
    code, _, err = raypatch("evaluate", str(run / "run"), "--data", str(run / "own.npz"), *words)
    assert (code, said in err) == (2, True)
