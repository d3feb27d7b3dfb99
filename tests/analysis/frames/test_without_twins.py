"""A report says which test images are no new ones, and can leave them out of every test score."""

from pathlib import Path

import numpy as np
import pytest

from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import prepare_report
from raypatch.analysis.statistics.stacks import load_stack
from raypatch.config import RunOptions
from raypatch.results import SweepPaths, read_predictions
from raypatch.results.repeated import read_repeated_images
from raypatch.study import Study
from raypatch.sweep.run import ExecutorOptions, run_sweep
from raypatch.tasks import find_task

from tiny import make_images


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of which three of the test split are those of train."""
    folder = tmp_path_factory.mktemp("twins")
    data = make_images(folder / "own.npz")
    with np.load(data) as stored:
        arrays = dict(stored)
    arrays["test_images"][[1, 4, 5]] = arrays["train_images"][[1, 4, 5]]
    np.savez(data, **arrays)
    fixed = {"dataset": str(data), "model": "test_vit", "weights": "random", "epochs": 1, "lr": 1e-3, "image_size": 8}
    study = Study.model_validate({"name": "t", "fixed": fixed, "grid": {"patch_size": [8, 4], "seed": [0]}})
    run_sweep(study, folder / "run", RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return folder / "run"


def test_the_run_knows_its_twins_and_the_report_warns(finished: Path) -> None:
    (found,) = read_repeated_images(SweepPaths(finished).twins).test.values()
    assert found == (1, 4, 5)
    notes = " ".join(prepare_report([finished], resamples=20).notes)
    assert "own: 3 of 12 test images repeat an image of train or val" in notes
    assert "`raypatch report --without-twins` leaves them out" in notes


def test_every_test_score_is_of_the_other_images(finished: Path) -> None:
    results = load_study(finished, without_twins=True)
    usual = load_study(finished)
    for row in results.trials.to_dict("records"):
        stored = read_predictions(Path(row["folder"]) / "predictions.npz", "test")
        kept = [index for index in range(12) if index not in (1, 4, 5)]
        expected = find_task("binary").score(stored.probability[kept], stored.label[kept])
        for name in ("loss", "accuracy", "balanced_accuracy", "auc"):
            assert row[f"test_{name}"] == pytest.approx(expected[name])
        assert row["test_images"] == 9
    assert results.trials["val_loss"].tolist() == usual.trials["val_loss"].tolist()
    assert load_stack(results.trials, "test").index.tolist() == kept
    assert len(load_stack(results.trials, "val").index) == 12
    notes = " ".join(prepare_report([finished], resamples=20, without_twins=True).notes)
    assert "own: 3 test images that repeat an image of train or val are left out." in notes


def test_an_older_run_says_how_to_find_out(finished: Path) -> None:
    twins = SweepPaths(finished).twins
    content = twins.read_bytes()
    twins.unlink()
    try:
        assert "repeat an image" not in " ".join(prepare_report([finished], resamples=20).notes)
        with pytest.raises(ValueError, match=r"not known which test images of own .*`raypatch resume .*run` finds out"):
            load_study(finished, without_twins=True)
    finally:
        twins.write_bytes(content)
