"""Experiment trackers are told of every trial and epoch, and a tracker that fails stops nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypatch.results import SweepPaths, append_epoch
from raypatch.sweep.watch.reported import report_of

from processes import PATIENCE, demo_words, said, start
from tiny import epoch_row, make_images, tiny_trial


class _Notebook:
    """The least that Tracker asks of a tracker's callback: it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def log_trial_start(self, trial: Any) -> None:
        self.told.append(("start", str(trial), trial.config["patch_size"]))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if result["epoch"] == 3:
            raise ConnectionError("the server went away")
        self.told.append(("epoch", result["training_iteration"], result["val_loss"]))

    def log_trial_end(self, trial: Any, *, failed: bool) -> None:
        self.told.append(("end", failed))


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_tracker_is_told_from_the_first_epoch_and_may_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from raypatch.sweep.watch.tracking import Tracker

    config, _ = tiny_trial(make_images(tmp_path / "images.npz"))
    paths, notebook = SweepPaths(tmp_path), _Notebook()
    epochs = paths.trial(config.trial_id()).epochs
    epochs.parent.mkdir(parents=True)
    trial = SimpleNamespace(trial_id="1", local_path="", config={"spec": {"trials": [config.model_dump(mode="json")]}})
    tracker = Tracker("mlflow", notebook, paths)
    tracker.on_trial_start(0, [], trial)
    append_epoch(epochs, epoch_row(1))  # of an earlier session
    append_epoch(epochs, epoch_row(2))
    for _ in range(2):  # the second time as after a crash of the worker
        tracker.on_trial_result(0, [], trial, report_of([(config.trial_id(), epoch_row(2))]))
    assert notebook.told == [("start", config.trial_id(), 4), ("epoch", 1, 0.5), ("epoch", 2, 0.5)]
    append_epoch(epochs, epoch_row(3))
    tracker.on_trial_result(0, [], trial, report_of([(config.trial_id(), epoch_row(3))]))
    tracker.on_trial_complete(0, [], trial)
    assert [record.message for record in caplog.records] == ["--track mlflow stopped: the server went away"]
    assert len(notebook.told) == 3


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")  # of mlflow's
def test_mlflow_holds_every_epoch_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="no mlflow: pip install 'raypatch[mlflow]'")
    from raypatch.sweep.watch.tracking import make_tracker

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, _ = tiny_trial(make_images(tmp_path / "images.npz"))
    paths = SweepPaths(tmp_path)
    epochs = paths.trial(config.trial_id()).epochs
    epochs.parent.mkdir(parents=True)
    trial = SimpleNamespace(trial_id="1", local_path="", config={"spec": {"trials": [config.model_dump(mode="json")]}})
    tracker = make_tracker("mlflow", paths)
    tracker.setup()
    tracker.on_trial_start(0, [], trial)
    for epoch in (1, 2):
        append_epoch(epochs, epoch_row(epoch, loss=1 / epoch))
        tracker.on_trial_result(0, [], trial, report_of([(config.trial_id(), epoch_row(epoch))]))
    tracker.on_trial_complete(0, [], trial)

    store = mlflow.tracking.MlflowClient(f"sqlite:///{paths.mlflow}")
    experiment = store.get_experiment_by_name(tmp_path.name)
    (run,) = store.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (config.trial_id(), "FAILED")  # there is no result
    assert run.data.params["patch_size"] == "4"
    history = store.get_metric_history(run.info.run_id, "val_loss")
    assert {point.step: point.value for point in history} == {1: 1.0, 2: 0.5}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_wandb_keeps_a_run_for_each_trial(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="no wandb: pip install 'raypatch[wandb]'")
    words = [*demo_words(tmp_path, 8, 4, epochs=2), "--track", "wandb"]
    sweep = start(words, tmp_path, WANDB_MODE="offline")
    assert sweep.wait(PATIENCE) == 0, said(tmp_path)
    paths = SweepPaths(tmp_path / "runs" / "demo")
    told = [path.read_bytes() for path in paths.folder.glob("wandb/offline-run-*/*.wandb")]
    trials = [trial.folder.name.encode() for trial in paths.trial_folders()]
    assert len(told) == len(trials) == 2
    for trial in trials:
        (mine,) = (content for content in told if trial in content)
        assert mine.count(b"val_loss") >= 2  # one for each epoch
