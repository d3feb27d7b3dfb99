"""A trial: what it leaves on disk, that it learns, and that a kill at any moment changes no bit."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import raypatch.training.checkpoints.writer
import raypatch.training.loop
import raypatch.trial
from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, TrialPaths, TrialResult, read_epochs, read_predictions, read_result
from raypatch.training.loop import Interrupted, TrialError
from raypatch.trial import prepare_trial, train_trial

import tiny
from tiny import make_images, make_masks, tiny_mask_trial, tiny_trial


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _figures(result: TrialResult) -> dict[str, object]:
    return json.loads(result.model_dump_json(include={"epochs", "best_epoch", "val", "test", "model", "dataset"}))


def _contents(paths: TrialPaths) -> dict[str, object]:
    rows = [
        row.model_dump(exclude={"seconds", "images_per_second", "peak_memory_bytes"})
        for row in read_epochs(paths.epochs)
    ]
    return {"rows": rows, "predictions": paths.predictions.read_bytes()}


def _run(folder: Path, config: TrialConfig, options: RunOptions, **callbacks: object) -> TrialResult:
    folder.mkdir(exist_ok=True)
    return train_trial(config, TrialPaths(folder), options, **callbacks)  # type: ignore[arg-type]


def test_a_finished_trial_leaves_the_schema_and_nothing_else(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    folder = tmp_path / "trial"
    result = _run(folder, config, options)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
        "epochs.jsonl",
        "predictions.npz",
        "result.json",
    ]
    assert read_result(folder / "result.json") == result
    assert (result.status, result.epochs, result.trial_id) == ("ok", 3, config.trial_id())
    assert result.model is not None
    assert result.model.tokens == 4
    assert result.dataset is not None
    assert result.dataset.counts == (24, 12, 12)
    test = read_predictions(folder / "predictions.npz", "test")
    assert np.array_equal(test.index, np.arange(12))
    assert np.allclose(test.probability.sum(axis=1), 1, atol=1e-6)
    losses = [row.val["loss"] for row in read_epochs(folder / "epochs.jsonl")]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.val is not None
    assert result.val["loss"] == pytest.approx(min(losses))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_training_learns_an_easy_task(tmp_path: Path, dimensions: int) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz", dimensions=dimensions), epochs=8)
    result = _run(tmp_path / "trial", config, options)
    assert result.test is not None
    assert result.test["auc"] > 0.9


class _Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("weights_from", ["finetune", "linear_probe"])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_continued_after_any_epoch_equals_undisturbed(tmp_path: Path, epoch: int, weights_from: str) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), method=weights_from)
    straight = _run(tmp_path / "straight", config, options)

    def die(row: EpochRow) -> None:
        if row.epoch == epoch:
            raise _Killed

    with pytest.raises(_Killed):
        _run(tmp_path / "broken", config, options, on_epoch=die)
    torch.manual_seed(12345)
    resumed = _run(tmp_path / "broken", config, options)
    assert _figures(resumed) == _figures(straight)
    assert _contents(TrialPaths(tmp_path / "broken")) == _contents(TrialPaths(tmp_path / "straight"))


@pytest.mark.parametrize("step", ["append_epoch", "save_tensors", "write_predictions", "write_json"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_kill_around_any_write_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str, call: int, seconds: float
) -> None:
    """With a checkpoint after each epoch, and after the first and the last one alone."""
    monkeypatch.setattr(raypatch.training.checkpoints.writer, "CHECKPOINT_SECONDS", seconds)
    trial = tiny_trial(make_images(tmp_path / "a.npz"), epochs=3)
    kill_and_resume(tmp_path, monkeypatch, trial, step=step, when=when, call=call)


def kill_and_resume(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trial: tuple[TrialConfig, RunOptions],
    *,
    step: str,
    when: str,
    call: int,
) -> None:
    """Kill a trial around a call of `step`, take it up again and compare it with one that was left alone."""
    config, options = trial
    straight = _run(tmp_path / "straight", config, options)
    places = {"append_epoch": raypatch.training.loop, "save_tensors": raypatch.training.checkpoints.writer}
    module = places.get(step, raypatch.trial)
    real, calls = getattr(module, step), 0

    def fatal(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            raise _Killed
        real(*arguments)
        if calls == call:
            raise _Killed

    monkeypatch.setattr(module, step, fatal)
    try:
        _run(tmp_path / "broken", config, options)
    except _Killed:
        monkeypatch.setattr(module, step, real)
        _run(tmp_path / "broken", config, options)
    stored = read_result(tmp_path / "broken" / "result.json")
    assert stored is not None
    assert _figures(stored) == _figures(straight)
    assert _contents(TrialPaths(tmp_path / "broken")) == _contents(TrialPaths(tmp_path / "straight"))


@pytest.mark.parametrize("name", ["last.ckpt", "best.safetensors", "epochs.jsonl"])
@pytest.mark.parametrize("damage", ["truncated", "removed", "altered", "altered at the start"])
def test_damaged_files_start_the_trial_again_and_never_give_a_wrong_result(
    tmp_path: Path, name: str, damage: str
) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    straight = _run(tmp_path / "straight", config, options)

    def die(row: EpochRow) -> None:
        if row.epoch == 2:
            raise _Killed

    with pytest.raises(_Killed):
        _run(tmp_path / "broken", config, options, on_epoch=die)
    path = tmp_path / "broken" / name
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-7])
    elif damage.startswith("altered"):
        content[0 if damage.endswith("start") else len(content) // 2] ^= 255
        path.write_bytes(content)
    else:
        path.unlink()
    resumed = _run(tmp_path / "broken", config, options)
    assert _figures(resumed) == _figures(straight)
    assert _contents(TrialPaths(tmp_path / "broken")) == _contents(TrialPaths(tmp_path / "straight"))


EVERYTHING: dict[str, object] = {
    "steps": 29,
    "selection": "val_accuracy",
    "eval_every": 2,
    "optimizer": "adam",
    "lr": 1e-3,
    "head_lr": 1e-2,
    "schedule": "plateau",
    "head_schedule": "step",
    "step_steps": 3,
    "step_gamma": 0.1,
    "plateau_patience": 0,
    "patience": 9,
    "warmup_steps": 2,
    "clip_norm": 0.5,
    "weight_decay": 1e-5,
    "decay_1d": False,
    "class_weights": "balanced",
    "sampling": "balanced",
    "focal_gamma": 1.0,
    "label_smoothing": 0.1,
    "image_size": 16,
    "resize": "pad_mean",
}
"""Steps that end within an epoch, a rate of its own for each part, a plateau at every evaluation that is no better."""


def test_all_that_optimisation_offers_goes_together(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), epochs=100, **EVERYTHING)
    result = _run(tmp_path / "trial", config, options)
    rows = read_epochs(tmp_path / "trial" / "epochs.jsonl")
    # 24 images in batches of 8: 3 steps an epoch, 29 steps in 10 epochs, evaluated every second one.
    assert [(row.epoch, row.step) for row in rows] == [(2, 6), (4, 12), (6, 18), (8, 24), (10, 29)]
    assert result.epochs == 10
    assert min(row.lr for row in rows) < max(row.lr for row in rows) == 1e-3


@pytest.mark.parametrize("step", ["append_epoch", "save_tensors"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [2, 4])
def test_a_kill_changes_no_bit_with_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str, call: int
) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), epochs=100, **EVERYTHING)
    kill_and_resume(tmp_path, monkeypatch, (config, options), step=step, when=when, call=call)


@pytest.mark.parametrize(
    ("step", "when", "call"),
    [("append_epoch", "after", 1), ("save_tensors", "after", 3), ("write_predictions", "before", 1)],
)
def test_a_kill_changes_no_bit_of_a_segmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str, call: int
) -> None:
    """Its head has dropout and batch statistics, and the last batch of 9 images has one."""
    data = make_masks(tmp_path / "a.npz", count=9)
    trial = tiny_mask_trial(data, augmentation="elastic", mask_loss="both")
    kill_and_resume(tmp_path, monkeypatch, trial, step=step, when=when, call=call)


def test_patience_ends_a_trial_and_a_resumed_one_alike(tmp_path: Path) -> None:
    fields: dict[str, object] = {"epochs": 40, "patience": 2, "lr": 1.0, "optimizer": "sgd"}
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), **fields)
    straight = _run(tmp_path / "straight", config, options)
    assert straight.best_epoch is not None
    assert straight.epochs == straight.best_epoch + 2 < 40

    def die(row: EpochRow) -> None:
        if row.epoch == straight.epochs:
            raise _Killed

    with pytest.raises(_Killed):
        _run(tmp_path / "broken", config, options, on_epoch=die)
    assert _figures(_run(tmp_path / "broken", config, options)) == _figures(straight)


def test_a_head_that_does_not_train_leaves_the_encoder_to_learn(tmp_path: Path) -> None:
    """The published bug of arXiv 2501.14685: the optimizer of the head was empty."""
    from safetensors.torch import load_file

    data = make_images(tmp_path / "a.npz")
    for field, frozen in (("head_lr", "head."), ("encoder_lr", "blocks.")):
        config, options = tiny_trial(data, epochs=1, **{field: 0})
        model = prepare_trial(config, TrialPaths(tmp_path / field), options).prepared.model
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        _run(tmp_path / field, config, options)
        after = load_file(tmp_path / field / "best.safetensors")
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved
        assert not any(name.startswith(frozen) for name in moved)


def test_images_are_enlarged_batch_by_batch_without_a_change(tmp_path: Path) -> None:
    """As bits: what was resized whole before training gives the same losses."""
    from raypatch.data.batches.resize import resize_images

    config, options = tiny_trial(make_images(tmp_path / "a.npz"), image_size=16, epochs=1)
    trial = prepare_trial(config, TrialPaths(tmp_path / "trial"), options)
    assert trial.train.images.shape[2:] == (8, 8)
    whole = resize_images(trial.train.images, 16, "bilinear")
    assert torch.equal(trial.prepared.inputs(whole), trial.prepared.inputs(trial.train.images))
    assert trial.prepared.augmented_shape(trial.train.images) == (16, 16)


def test_the_border_of_pad_mean_is_the_mean_colour_also_where_images_are_augmented(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), image_size=16, resize="pad_mean")
    trial = prepare_trial(config, TrialPaths(tmp_path / "trial"), options)
    images = trial.train.images
    parameters = raypatch.training.loop.draw_augmentation(trial, 0)
    for inputs in (trial.prepared.inputs(images), trial.prepared.inputs(images, parameters)):
        assert inputs.shape == (24, 3, 16, 16)
        border = torch.ones(16, 16, dtype=torch.bool)
        border[4:12, 4:12] = False
        assert (inputs[..., border] == 0).all()
        assert (inputs[..., 4:12, 4:12] != 0).any()


def test_a_stopped_trial_keeps_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    straight = _run(tmp_path / "straight", config, options)
    steps = 0

    def in_second_epoch() -> bool:
        nonlocal steps
        steps += 1
        return steps > 5

    with pytest.raises(Interrupted):
        _run(tmp_path / "stopped", config, options, should_stop=in_second_epoch)
    assert not (tmp_path / "stopped" / "result.json").exists()
    assert len(read_epochs(tmp_path / "stopped" / "epochs.jsonl")) == 1
    assert _figures(_run(tmp_path / "stopped", config, options)) == _figures(straight)


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    path = make_images(tmp_path / "a.npz")
    losses = []
    for number, seed in enumerate((0, 1, 0)):
        config, options = tiny_trial(path, seed=seed, epochs=1)
        result = _run(tmp_path / str(number), config, options)
        assert result.val is not None
        losses.append(result.val["loss"])
    assert losses[0] == losses[2] != losses[1]


def test_diverged_training_says_so(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), lr=1e30, optimizer="sgd")
    with pytest.raises(TrialError, match=r"training diverged in epoch .: its loss is .*; lower lr"):
        _run(tmp_path / "trial", config, options)


def test_test_split_is_read_only_after_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    real, read = raypatch.trial.load_resident, []

    def watch(config: TrialConfig, split: str, *rest: object) -> object:
        read.append(split)
        return real(config, split, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(raypatch.trial, "load_resident", watch)
    _run(tmp_path / "trial", config, options, on_epoch=lambda row: read.append(row.epoch))
    assert read == ["train", "val", 1, 2, 3, "test"]


def test_accumulated_micro_batches_take_the_same_step(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), precision="float32", epochs=1)
    whole = _run(tmp_path / "whole", config, options)
    parts = _run(tmp_path / "parts", config, options.model_copy(update={"micro_batch": 3}))
    assert whole.val is not None
    assert parts.val is not None
    assert parts.val["loss"] == pytest.approx(whole.val["loss"], rel=1e-4)


def test_out_of_memory_halves_the_micro_batch_without_losing_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), precision="float32", epochs=1)
    whole = _run(tmp_path / "whole", config, options)
    real = raypatch.training.loop.TrainingStep._step

    def small_memory(step: raypatch.training.loop.TrainingStep, *batch: torch.Tensor) -> torch.Tensor:
        if step.micro_batch > 2:
            raise torch.OutOfMemoryError
        return real(step, *batch)

    monkeypatch.setattr(raypatch.training.loop.TrainingStep, "_step", small_memory)
    halved = _run(tmp_path / "halved", config, options)
    assert whole.val is not None
    assert halved.val is not None
    assert halved.val["loss"] == pytest.approx(whole.val["loss"], rel=1e-4)


def test_linear_probe_moves_the_head_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config, options = tiny_trial(make_images(tmp_path / "a.npz"), method="linear_probe")
    model = prepare_trial(config, TrialPaths(tmp_path / "trial"), options).prepared.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _run(tmp_path / "trial", config, options)
    after = load_file(tmp_path / "trial" / "best.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}


def test_selection_takes_the_first_best_epoch_and_never_nan() -> None:
    from raypatch.training.checkpoints.checkpoint import Progress

    config = TrialConfig(dataset="derma", patch_size=4, selection="val_auc")
    progress = Progress()
    for epoch, auc in enumerate((float("nan"), 0.5, 0.7, 0.7, float("nan"), 0.6), start=1):
        row = EpochRow(epoch=epoch, train_loss=1, val={"loss": 1, "auc": auc}, lr=1, seconds=1, images_per_second=1)
        progress = raypatch.training.loop.advance(progress, row, config)
    assert (progress.epoch, progress.best_epoch, progress.best_figure) == (6, 3, 0.7)


def test_trained_trial_runs_without_the_optional_packages(tmp_path: Path) -> None:
    import subprocess
    import sys

    make_images(tmp_path / "a.npz")
    code = f"""
import sys
for name in ("ray", "medmnist", "fvcore", "optuna", "pandas", "typer", "rich"):
    sys.modules[name] = None
sys.path.insert(0, {str(Path(tiny.__file__).parent)!r})
from pathlib import Path
from tiny import tiny_trial
from raypatch.results import TrialPaths
from raypatch.trial import train_trial
config, options = tiny_trial(Path({str(tmp_path / "a.npz")!r}), epochs=1)
folder = Path({str(tmp_path / "trial")!r})
folder.mkdir()
print(train_trial(config, TrialPaths(folder), options).status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "ok", done.stderr
    shutil.rmtree(tmp_path / "trial")
