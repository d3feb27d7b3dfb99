"""The seams are real: a family, a task, a metric and a method from outside the package run a study."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.source import describe
from raypatch.models.build import build_model, check_model
from raypatch.models.families import find_family
from raypatch.models.flops import body_facts, model_facts
from raypatch.models.memory import peak_bytes
from raypatch.predict import export_trial, find_trials, load_exported, load_model, predict
from raypatch.results import SweepPaths, read_epochs, read_predictions
from raypatch.selection import lower_is_better
from raypatch.study import Study
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.cost.seconds.step_timing import time_trial
from raypatch.sweep.run import ExecutorOptions, run_sweep
from raypatch.tasks import Metric, find_metric, find_task, resample_metric, score_names
from raypatch.tasks.registry import installed_metrics

from tiny import make_images

FAMILY, TASK, METHOD = "own_members:SmallNets", "own_members:SmoothedTask", "own_members:FreezeBias"


def _study(data: Path, **fixed: object) -> Study:
    fields = {"dataset": str(data), "image_size": 8, "weights": "random", "epochs": 2, "lr": 1e-3, "task": TASK} | fixed
    levels = {"transformer": {"model": "test_vit", "patch_size": 4}, "small net": {"model": FAMILY}}
    grid = {"network": levels, "seed": [0, 1]}
    return Study.model_validate({"name": "own", "compare": ["network"], "fixed": fields, "grid": grid})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("own")
    data = make_images(folder / "own.npz", classes=3)
    study = _study(data, selection="val_macro_f1", method=METHOD)
    run_sweep(study, folder / "run", RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return folder / "run", data


def test_a_study_with_members_of_ones_own_runs_and_keeps_their_scores(finished: tuple[Path, Path]) -> None:
    found = find_trials(finished[0])
    assert len(found.trials) == 4
    for trial in found.trials:
        assert trial.result.test is not None
        assert list(trial.result.test) == [
            "loss",
            "accuracy",
            "balanced_accuracy",
            "auc",
            "macro_recall",
            "macro_f1",
            "error_rate",
        ]
        rows = read_epochs(trial.paths.epochs)
        assert list(rows[0].val) == ["loss", "accuracy", "balanced_accuracy", "auc", "macro_f1"]
        best = max(range(2), key=lambda place: rows[place].val["macro_f1"])
        assert trial.result.best_epoch == best + 1
        assert trial.dataset.task == TASK
        assert (trial.model.tokens is None) == (trial.config.model == FAMILY)


def test_its_predictions_are_found_by_level_and_equal_what_was_stored(finished: tuple[Path, Path]) -> None:
    run, data = finished
    text, (used,), _ = predict(run, data, dataset=None, levels=["small net"], split="test", device="cpu")
    config = {trial.result.trial_id: trial.config for trial in find_trials(run).trials}[used]
    assert config.model == FAMILY
    # Name and predicted class come first, the truth last.
    rows = [line.split(",")[2:-1] for line in text.splitlines()[1:]]
    stored = read_predictions(SweepPaths(run).trial(used).predictions, "test")
    assert np.array_equal(np.array(rows, np.float32), stored.probability)
    _, members, _ = predict(run, data, dataset=None, levels=["transformer", "small net"], split="test", device="cpu")
    assert len(members) == 2


def test_its_model_is_exported_and_read_again(finished: tuple[Path, Path], tmp_path: Path) -> None:
    member = next(trial for trial in find_trials(finished[0]).trials if trial.config.model == FAMILY)
    out = export_trial(finished[0], member.result.trial_id, tmp_path / "out")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(load_exported(out)(images), load_model(member)(images))


def test_its_report_speaks_of_the_factor_and_of_the_tasks_own_metric(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    from raypatch.analysis.report import write_report

    written = write_report([finished[0]], tmp_path / "report", ["md"])
    assert "Network" in written.text
    assert "small net" in written.text
    assert " F1 |" in written.text
    assert "patch size" not in written.text.lower()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_costs_of_a_family_of_ones_own_are_counted(dimensions: int) -> None:
    config = TrialConfig(dataset=f"phantom{dimensions}d", model=FAMILY, weights="random", image_size=8, batch_size=4)
    facts = model_facts(config, dimensions=dimensions, outputs=3)
    pixels = 8**dimensions
    products = pixels * (3 * 8 + 8 * 8) * 3**dimensions + 8 * 3
    assert facts.gflops == pytest.approx(2e-9 * products)
    kept = find_family(FAMILY).activations(config, body_facts(facts), "float32").kept
    assert kept >= 4 * pixels * (3 + 8 + 8), "input, and what the two convolutions were given"
    info = describe(config.dataset, data_dir=None, files={})
    assert peak_bytes(config, info, facts, "float32", micro_batch=4) > 4 * kept
    assert time_trial(config, RunOptions(device="cpu", threads=1)).step > 0


def test_features_are_what_the_head_is_given() -> None:
    config = TrialConfig(dataset="phantom2d", model=FAMILY, weights="random", image_size=8)
    model = build_model(config, dimensions=2, outputs=3, files={}).model.eval()
    images = torch.rand(2, 3, 8, 8)
    family = find_family(FAMILY)
    assert torch.equal(model.classifier(family.pooled(model, images)), model(images))  # type: ignore[operator]
    assert family.tokens(model, images) is None


def test_weights_of_its_own_start_it_and_hub_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from raypatch.storage.own_files import own_file_id

    config = TrialConfig(dataset="phantom2d", model=FAMILY, weights="random", image_size=8)
    source = build_model(config, dimensions=2, outputs=5, files={}).model
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    name = own_file_id(tmp_path / "own.safetensors")
    started = config.model_copy(update={"weights": name, "seed": 3})
    model = build_model(started, dimensions=2, outputs=3, files={name: tmp_path / "own.safetensors"}).model
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[key]) != key.startswith("classifier") or tensor.shape[0] == 3
    with pytest.raises(ValueError, match="comes without pretrained weights: use --weights random"):
        check_model(config.model_copy(update={"weights": "timm"}), dimensions=2, outputs=3, files={})


def test_a_patch_size_is_refused_where_there_are_no_patches() -> None:
    config = TrialConfig(dataset="phantom2d", model=FAMILY, weights="random", image_size=8, patch_size=4)
    with pytest.raises(ValueError, match="has no patches: leave patch_size=4 out"):
        check_model(config, dimensions=2, outputs=3, files={})


def test_a_family_that_lacks_a_part_of_the_protocol_is_refused_by_its_name() -> None:
    with pytest.raises(
        ValueError, match=r"own_members:HalfFamily is no model family: it lacks check_fields, construct"
    ):
        find_family("own_members:HalfFamily")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "own_members:Nothing"}, "own_members has no Nothing"),
        ({"task": "absent_module:TASK"}, "cannot import absent_module .* name its folder in PYTHONPATH"),
        ({"task": "multilabel"}, "task=multilabel reads labels of the kind multilabel, and own has binary ones"),
        ({"task": "multi"}, "unknown task 'multi': use multi"),
        ({"method": "finetuning"}, "unknown method 'finetuning': use finetune, or module:NAME"),
        ({"selection": "val_acc"}, "selection=val_acc is no score that training computes for own: use .*val_accuracy"),
        ({"selection": "val_error_rate"}, "selection=val_error_rate is no score"),
    ],
)
def test_members_that_do_not_exist_are_refused_before_the_start(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    study = _study(make_images(tmp_path / "own.npz"), **fields)
    with pytest.raises(ValueError, match=message):
        resolve_trials(study)


def test_a_metric_knows_its_direction_by_its_task() -> None:
    assert lower_is_better("val_loss")
    assert not lower_is_better("val_auc")
    assert lower_is_better("val_error_rate", TASK)
    with pytest.raises(ValueError, match="unknown metric 'error_rate'"):
        lower_is_better("val_error_rate")


def test_a_metric_without_a_fast_form_is_resampled_image_by_image() -> None:
    task, random = find_task("multiclass"), np.random.default_rng(0)
    probability, label = random.dirichlet(np.ones(3), 40), random.integers(0, 3, 40)
    drawn = random.multinomial(40, np.full(40, 1 / 40), size=5).T.astype(np.float32)
    fast = find_metric("balanced_accuracy")
    slow = Metric("slow", "S", "slow", fast.function)
    wanted = resample_metric(fast, probability, label, task, drawn)
    assert resample_metric(slow, probability, label, task, drawn) == pytest.approx(wanted, abs=1e-6)


def test_an_installed_package_adds_its_members_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[raypatch.metrics]\nmacro_f1 = own_members:MACRO_F1\n[raypatch.tasks]\nsmooth = own_members:SmoothedTask\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    installed_metrics.cache_clear()
    try:
        assert score_names(find_task("binary"))[-1] == "macro_f1"
        assert find_metric("macro_f1").heading == "F1"
        assert find_task("smooth").default_metric == "macro_f1"
    finally:
        installed_metrics.cache_clear()
