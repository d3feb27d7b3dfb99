"""Pretraining as a trial: what it leaves, that it never sees test or val, resume to the bit, refusals, collapse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import raypatch.methods.pretrain as pretrain
from raypatch.config import RunOptions, TrialConfig, make_config
from raypatch.data.source import describe
from raypatch.methods import check_fields
from raypatch.models.build import build_model
from raypatch.results import EpochRow, TrialPaths, TrialResult, read_epochs
from raypatch.storage.own_files import own_file_id
from raypatch.trial import train_trial

from tiny import make_images, tiny_trial

FEW = {
    "method": "pretrain",
    "schedule": "cosine",
    "image_size": 16,
    "projection_width": 16,
    "prototypes": 32,
    "local_views": 2,
    "last_weight_decay": 0.1,
}


def _trial(tmp_path: Path, dimensions: int = 2, **fields: object) -> tuple[TrialConfig, RunOptions]:
    data = make_images(tmp_path / "a.npz", size=16, dimensions=dimensions)
    return tiny_trial(data, **(FEW | fields))


def _run(folder: Path, config: TrialConfig, options: RunOptions, **callbacks: Any) -> TrialResult:
    folder.mkdir(exist_ok=True)
    return train_trial(config, TrialPaths(folder), options, **callbacks)


def _rows(folder: Path) -> list[dict[str, object]]:
    rows = read_epochs(TrialPaths(folder).epochs)
    return [row.model_dump(exclude={"seconds", "images_per_second", "peak_memory_bytes"}) for row in rows]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_pretraining_leaves_weights_that_the_model_starts_from(tmp_path: Path, dimensions: int) -> None:
    config, options = _trial(tmp_path, dimensions, eval_every=2)
    result = _run(tmp_path / "trial", config, options)
    names = sorted(path.name for path in (tmp_path / "trial").iterdir())
    assert names == ["best.safetensors", "epochs.jsonl", "result.json"]
    assert (result.status, result.epochs, result.test, result.best_epoch) == ("ok", 3, None, None)
    rows = read_epochs(tmp_path / "trial" / "epochs.jsonl")
    assert [row.epoch for row in rows] == [2, 3]
    assert result.val == rows[-1].val
    assert set(rows[0].watched) == {"teacher_entropy", "teacher_information"}
    weights = tmp_path / "trial" / "best.safetensors"
    started = config.model_copy(update={"method": "finetune", "weights": own_file_id(weights)})
    built = build_model(started, dimensions=dimensions, outputs=2, files={**options.files, started.weights: weights})
    stored = load_file(weights)
    assert torch.equal(built.model.state_dict()["blocks.0.attn.qkv.weight"], stored["blocks.0.attn.qkv.weight"])


def test_a_cnn_learns_too(tmp_path: Path) -> None:
    config, options = _trial(tmp_path, model="test_resnet", patch_size=None, image_size=64, epochs=1)
    assert _run(tmp_path / "trial", config, options).status == "ok"


class _Killed(BaseException):
    """Stands for a process that ends here."""


def _kill(monkeypatch: pytest.MonkeyPatch, write: str, call: int, when: str) -> None:
    """Let the process end around one of its writes."""
    original, calls = getattr(pretrain, write), iter(range(1, 100))

    def write_or_die(*arguments: Any) -> None:
        number = next(calls)
        if number == call and when == "before":
            raise _Killed
        original(*arguments)
        if number == call:
            raise _Killed

    monkeypatch.setattr(pretrain, write, write_or_die)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("write", "call"), [("append_epoch", 1), ("save_tensors", 2), ("save_tensors", 4)])
def test_a_kill_around_any_write_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, call: int, when: str
) -> None:
    config, options = _trial(tmp_path, drop_path=0.3)
    _run(tmp_path / "straight", config, options)
    with monkeypatch.context() as patch:
        _kill(patch, write, call, when)
        with pytest.raises(_Killed):
            _run(tmp_path / "broken", config, options)
    torch.manual_seed(12345)
    _run(tmp_path / "broken", config, options)
    assert _rows(tmp_path / "broken") == _rows(tmp_path / "straight")
    straight, broken = (load_file(tmp_path / name / "best.safetensors") for name in ("straight", "broken"))
    assert all(torch.equal(broken[name], tensor) for name, tensor in straight.items())


def test_val_and_test_images_change_no_weight(tmp_path: Path) -> None:
    config, options = _trial(tmp_path)
    _run(tmp_path / "clean", config, options)
    with np.load(tmp_path / "a.npz") as stored:
        arrays = dict(stored)
    random = np.random.default_rng(7)
    for split in ("val", "test"):
        arrays[f"{split}_images"] = random.integers(0, 256, arrays[f"{split}_images"].shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = 1 - arrays[f"{split}_labels"]
    np.savez(tmp_path / "poisoned.npz", **arrays)
    poisoned, where = tiny_trial(tmp_path / "poisoned.npz", **FEW)
    _run(tmp_path / "poisoned", poisoned, where)
    clean, found = (load_file(tmp_path / name / "best.safetensors") for name in ("clean", "poisoned"))
    assert all(torch.equal(found[name], tensor) for name, tensor in clean.items())
    assert _rows(tmp_path / "clean") != _rows(tmp_path / "poisoned")


def test_labels_change_no_weight(tmp_path: Path) -> None:
    config, options = _trial(tmp_path, epochs=1)
    _run(tmp_path / "clean", config, options)
    with np.load(tmp_path / "a.npz") as stored:
        arrays = dict(stored)
    arrays["train_labels"] = arrays["train_labels"][::-1]
    np.savez(tmp_path / "other.npz", **arrays)
    other, where = tiny_trial(tmp_path / "other.npz", **(FEW | {"epochs": 1}))
    _run(tmp_path / "other", other, where)
    clean, found = (load_file(tmp_path / name / "best.safetensors") for name in ("clean", "other"))
    assert all(torch.equal(found[name], tensor) for name, tensor in clean.items())


def test_without_a_centre_it_collapses_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = {"teacher_temperature": 0.04, "epochs": 10, "lr": 3e-3, "temperature_epochs": 0, "last_weight_decay": None}
    seen: list[EpochRow] = []
    config, options = _trial(tmp_path, centre_momentum=1.0, **fields)
    result = _run(tmp_path / "trial", config, options, on_epoch=seen.append)
    assert result.alarm is not None
    assert result.alarm.startswith("collapsed")
    assert result.alarm in caplog.text
    assert seen[-1].alarm == result.alarm
    centred, options = _trial(tmp_path, **fields)
    assert _run(tmp_path / "centred", centred, options).alarm is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "step"}, "use cosine or constant"),
        ({"head": "mlp"}, "not with method=pretrain"),
        ({"k": 5}, "goes with method=knn"),
        ({"method": "finetune"}, "goes with method=pretrain"),
        ({"resize": "pad_mean"}, "use pad or bilinear"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config({"dataset": "breastmnist"} | FEW | fields)


def test_a_model_of_one_size_is_refused_local_views(tmp_path: Path) -> None:
    config, options = _trial(
        tmp_path, model="swin_tiny_patch4_window7_224", patch_size=None, image_size=224, local_views=2
    )
    info = describe(config.source, data_dir=None, files=options.files)
    with pytest.raises(ValueError, match="set local_views=0"):
        check_fields(config, info)
    check_fields(config.model_copy(update={"local_views": 0}), info)


@pytest.mark.gpu
def test_a_gpu_computes_what_a_cpu_does(tmp_path: Path) -> None:
    config, options = _trial(tmp_path, precision="float32", drop_path=0.0)
    _run(tmp_path / "cpu", config, options)
    on_card = options.model_copy(update={"device": "cuda"})
    _run(tmp_path / "cuda", config, on_card)
    losses = [[row["train_loss"] for row in _rows(tmp_path / name)] for name in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    rounded = config.model_copy(update={"precision": "bfloat16"})
    assert _run(tmp_path / "rounded", rounded, on_card).precision == "bfloat16"
