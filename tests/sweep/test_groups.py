"""Trials that run together: each has its own files, and what comes after a run knows no difference."""

from pathlib import Path

import numpy as np
import pytest

import raypatch.sweep.executors.local
from raypatch.api import report
from raypatch.config import RunOptions, TrialConfig
from raypatch.methods import MOST_TOGETHER
from raypatch.predict import export_trial, load_exported, predict
from raypatch.results import SweepPaths, read_epochs, read_predictions, read_result
from raypatch.sweep.groups import group_trials
from raypatch.sweep.run import ExecutorOptions, Outcome, run_sweep

from tiny import make_images, tiny_study

PROBE = {"method": "linear_probe", "augmentation": "none", "epochs": 2}


def _run(
    data: Path, folder: Path, *, executor: str = "local", fixed: dict[str, object] | None = None, **axes: object
) -> Outcome:
    study = tiny_study(data, fixed={**PROBE, **(fixed or {})}, **axes)
    execution = ExecutorOptions(executor=executor, retries=0)  # type: ignore[arg-type]
    return run_sweep(study, folder, RunOptions(device="cpu", threads=1), execution)


def test_rates_go_together_and_seeds_where_they_share_features() -> None:
    def trial(**fields: object) -> TrialConfig:
        base = {"dataset": "derma", "patch_size": 4, **PROBE}
        return TrialConfig.model_validate(base | fields)

    both = [trial(lr=lr, seed=seed) for lr in (1e-3, 1e-2) for seed in (0, 1)]
    assert group_trials(both) == [tuple(both)]
    random = [trial(lr=lr, seed=seed, weights="random") for lr in (1e-3, 1e-2) for seed in (0, 1)]
    assert [len(group) for group in group_trials(random)] == [2, 2]
    apart = [
        trial(),
        trial(head="mlp"),
        trial(patch_size=7),
        trial(batch_size=16),
        trial(augmentation="paper"),
        trial(method="finetune"),
        trial(method="knn"),
        trial(task="own_members:SmoothedTask"),
    ]
    assert [len(group) for group in group_trials(apart)] == [1] * len(apart)
    many = [trial(seed=seed) for seed in range(MOST_TOGETHER + 1)]
    assert [len(group) for group in group_trials(many)] == [MOST_TOGETHER, 1]


def test_each_trial_of_a_group_has_its_files_and_is_reported(tmp_path: Path) -> None:
    data = make_images(tmp_path / "own.npz")
    outcome = _run(data, tmp_path / "run", patch_size=[8], lr=[1e-3, 1e-2, 1e-1], head=["linear", "mlp"])
    assert (outcome.ok, outcome.left, outcome.errors) == (6, 0, {})
    paths = SweepPaths(tmp_path / "run")
    for trial in paths.trial_folders():
        result = read_result(trial.result)
        assert result is not None
        assert (result.status, result.epochs, result.trial_id) == ("ok", 2, trial.folder.name)
        assert [row.epoch for row in read_epochs(trial.epochs)] == [1, 2]
        assert len(read_predictions(trial.predictions, "test").index) == 12
        assert "heads train together" in trial.log.read_text()
        assert trial.event_files()
        assert trial.best_weights.exists()
        assert not trial.checkpoint.exists()
        assert not trial.lock.exists()
    assert len(list((paths.features).glob("*/train.npy"))) == 1
    assert "linear" in report(tmp_path / "run", compare=["head"]).text
    # Nothing is left to do, and what is gone is done again, alone.
    gone = paths.trial_folders()[0]
    gone.result.unlink()
    assert _run(data, tmp_path / "run", patch_size=[8], lr=[1e-3, 1e-2, 1e-1], head=["linear", "mlp"]).ok == 6
    assert read_result(gone.result) is not None


def test_a_group_that_crashed_is_tried_again_without_those_that_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = raypatch.sweep.executors.local.run_group_guarded
    tries: list[int] = []

    def crash(group, *arguments, **options):  # type: ignore[no-untyped-def]
        tries.append(len(group))
        for number, result in enumerate(real(group, *arguments, **options)):
            yield result
            if len(tries) == 1 and number == 0:
                raise MemoryError("passing trouble")

    monkeypatch.setattr(raypatch.sweep.executors.local, "run_group_guarded", crash)
    data = make_images(tmp_path / "own.npz")
    study = tiny_study(data, fixed=dict(PROBE), patch_size=[8], lr=[1e-3, 1e-2, 1e-1])
    outcome = run_sweep(
        study, tmp_path / "run", RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local", retries=1)
    )
    assert tries == [3, 2]
    assert (outcome.ok, outcome.errors) == (3, {})


def test_a_trial_that_diverges_fails_alone(tmp_path: Path) -> None:
    data = make_images(tmp_path / "own.npz")
    outcome = _run(data, tmp_path / "run", fixed={"optimizer": "sgd"}, patch_size=[8], lr=[1e-3, 1e30])
    assert outcome.ok == 1
    (error,) = outcome.errors.values()
    assert "training diverged in epoch 1" in error


@pytest.mark.parametrize("fields", [{"head": "mlp"}, {"head": "attention"}, {}, {"method": "knn", "k": 3}])
def test_predictions_of_new_images_are_the_stored_ones(tmp_path: Path, fields: dict[str, object]) -> None:
    data = make_images(tmp_path / "own.npz")
    assert _run(data, tmp_path / "run", fixed=fields, patch_size=[4], lr=[1e-3, 1e-2]).ok == 2
    table, (trial_id,), _ = predict(tmp_path / "run", data, dataset=None, levels=None, split="test", device="cpu")
    # Name and predicted class come first, the truth last.
    found = np.array([line.split(",")[2:-1] for line in table.splitlines()[1:]], float)
    stored = read_predictions(SweepPaths(tmp_path / "run").trial(trial_id).predictions, "test")
    assert np.array_equal(found.astype(np.float32), stored.probability)
    if fields.get("method") == "knn":
        with pytest.raises(ValueError, match="is no network: its method, knn, looks new images up"):
            export_trial(tmp_path / "run", trial_id, tmp_path / "out")
        return
    export_trial(tmp_path / "run", trial_id, tmp_path / "out")
    model = load_exported(tmp_path / "out")
    import torch

    images = torch.from_numpy(np.load(data)["test_images"]).float().div(255).sub(0.5).div(0.5)
    logits = model(images.unsqueeze(1).expand(-1, 3, -1, -1)).detach()
    assert logits.softmax(1).numpy() == pytest.approx(stored.probability, abs=0.02)  # bfloat16


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_runs_groups_and_methods_without_epochs(tmp_path: Path) -> None:
    data = make_images(tmp_path / "own.npz")
    methods = {
        "probe": {"method": "linear_probe"},
        "neighbours": {"method": "knn", "k": 3},
    }
    outcome = _run(data, tmp_path / "run", executor="ray", patch_size=[8], how=methods, lr=[1e-3, 1e-2, 1e-1])
    assert (outcome.ok, outcome.left, outcome.errors) == (6, 0, {})
    logs = [trial.log.read_text() for trial in SweepPaths(tmp_path / "run").trial_folders()]
    assert sum("3 heads train together" in log for log in logs) == 3


def test_neighbours_are_reported_beside_a_probe(tmp_path: Path) -> None:
    from raypatch.api import load
    from raypatch.run_folders import find_removable
    from raypatch.sweep.watch.status import read_status

    data = make_images(tmp_path / "own.npz")
    methods = {"probe": {"method": "linear_probe", "lr": 1e-2}, "neighbours": {"method": "knn", "k": 3}}
    assert _run(data, tmp_path / "run", patch_size=[4], how=methods, seed=[0, 1]).ok == 4
    assert "Keep linear probe" in report(tmp_path / "run", compare=["method"]).text
    trials = load(tmp_path / "run").set_index("method")
    assert trials.loc["knn", "test_auc"].notna().all()
    assert "4" in read_status(SweepPaths(tmp_path / "run")).as_json()
    assert find_removable(tmp_path / "run").weights == 2
