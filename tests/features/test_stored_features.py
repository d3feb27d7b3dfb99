"""Stored features: once per backbone and data, equal to what the loop sees, whole or absent on disk."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import raypatch.features.head
from raypatch.config import RunOptions, TrialConfig
from raypatch.features.identity import backbone_key, feature_key
from raypatch.features.store import FeatureStore
from raypatch.methods.linear_probe import LinearProbe
from raypatch.models.families.counted import CountedFamily
from raypatch.results import SweepPaths, TrialResult, read_epochs
from raypatch.trial import train_group, train_trial

from tiny import make_images, tiny_trial

PROBE = {"method": "linear_probe", "augmentation": "none", "precision": "float32", "epochs": 3}


def _train(config: TrialConfig, options: RunOptions, folder: Path) -> TrialResult:
    paths = SweepPaths(folder).trial(config.trial_id())
    paths.folder.mkdir(parents=True)
    return train_trial(config, paths, options)


def _train_together(configs: list[TrialConfig], options: RunOptions, folder: Path) -> list[TrialResult]:
    paths = {config.trial_id(): SweepPaths(folder).trial(config.trial_id()) for config in configs}
    for each in paths.values():
        each.folder.mkdir(parents=True, exist_ok=True)
    group = train_group(configs, paths, options, on_epoch=lambda trial_id, row: None, should_stop=lambda: False)
    results = {config.trial_id(): result for config, result in group}
    return [results[config.trial_id()] for config in configs]  # type: ignore[misc]


def _without_time(folder: Path, config: TrialConfig) -> list[dict[str, object]]:
    rows = read_epochs(SweepPaths(folder).trial(config.trial_id()).epochs)
    return [row.model_dump(include={"epoch", "train_loss", "val", "lr"}) for row in rows]


def _flat(rows: list[dict[str, object]]) -> list[float]:
    numbers: list[float] = []
    for row in rows:
        numbers += [row["epoch"], row["train_loss"], row["lr"], *row["val"].values()]  # type: ignore[misc,list-item,attr-defined]
    return numbers


@pytest.mark.parametrize("head", ["linear", "mlp", "attention"])
def test_a_probe_on_stored_features_equals_the_unstored_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    data = make_images(tmp_path / "own.npz")
    trials = [tiny_trial(data, **PROBE, head=head, lr=lr, weight_decay=decay) for lr, decay in ((1e-3, 0.1), (1e-2, 0))]
    configs, options = [config for config, _ in trials], trials[0][1]
    together = _train_together(configs, options, tmp_path / "together")
    alone = [_train(config, options, tmp_path / "alone") for config in configs]
    monkeypatch.setattr(LinearProbe, "reads_features", lambda self, config: False)
    unstored = [_train(config, options, tmp_path / "unstored") for config in configs]
    for config, one, other, reference in zip(configs, together, alone, unstored, strict=True):
        for result in (one, other):
            assert result.test == pytest.approx(reference.test, abs=1e-6)
            assert result.best_epoch == reference.best_epoch
            assert result.model == reference.model
        expected = _flat(_without_time(tmp_path / "unstored", config))
        assert _flat(_without_time(tmp_path / "alone", config)) == pytest.approx(expected, abs=1e-6)
        assert _flat(_without_time(tmp_path / "together", config)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 100, "steps": 8, "eval_every": 2, "schedule": "cosine", "warmup_steps": 2, "clip_norm": 0.05},
        {"sampling": "balanced", "class_weights": "balanced", "label_smoothing": 0.1, "train_fraction": 0.8},
        {"optimizer": "adam", "focal_gamma": 2.0, "drop_last": True, "head_lr": 3e-3, "decay_1d": False},
        {"epochs": 8, "patience": 1, "schedule": "plateau", "plateau_patience": 0, "selection": "val_accuracy"},
    ],
)
def test_heads_heed_every_field_together_as_alone(tmp_path: Path, fields: dict[str, object]) -> None:
    data = make_images(tmp_path / "own.npz")
    trials = [tiny_trial(data, **{**PROBE, **fields}, lr=lr) for lr in (1e-3, 1e-2, 3e-2)]
    configs, options = [config for config, _ in trials], trials[0][1]
    together = _train_together(configs, options, tmp_path / "together")
    for config, result in zip(configs, together, strict=True):
        reference = _train(config, options, tmp_path / "alone")
        assert result.best_epoch == reference.best_epoch
        assert result.test == pytest.approx(reference.test, abs=1e-6)
        expected = _flat(_without_time(tmp_path / "alone", config))
        assert _flat(_without_time(tmp_path / "together", config)) == pytest.approx(expected, abs=1e-6)


def test_features_are_computed_once_for_all_heads_rates_seeds_and_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    real = raypatch.features.head.extract_features

    def counted(prepared, images, kind, before_batch):  # type: ignore[no-untyped-def]
        passes.append(len(images))
        return real(prepared, images, kind, before_batch)

    monkeypatch.setattr(raypatch.features.head, "extract_features", counted)
    data = make_images(tmp_path / "own.npz")
    weights = tmp_path / "weights.safetensors"
    _write_weights(weights)
    for fields in (
        {"head": "linear"},
        {"head": "mlp", "seed": 1},
        {"head": "linear", "lr": 1e-2, "seed": 2, "train_fraction": 0.5},
        {"method": "knn", "k": 3},
        {"method": "knn", "k": 5, "distance": "cosine", "vote": "weighted"},
    ):
        config, options = _with_weights(data, weights, **{**PROBE, **fields})
        _train(config, options, tmp_path / "run")
    assert passes == [24, 12, 12]
    (about,) = (tmp_path / "run" / "features").glob("*/about.json")
    assert json.loads(about.read_bytes())["passes"]["train"]["images"] == 24


def _write_weights(path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("test_vit", num_classes=3, img_size=8, patch_size=4)
    save_file(model.state_dict(), path)


def _with_weights(data: Path, weights: Path, **fields: object) -> tuple[TrialConfig, RunOptions]:
    from raypatch.storage.own_files import own_file_id

    config, options = tiny_trial(data, weights=own_file_id(weights), **fields)
    return config, options.model_copy(update={"files": {**options.files, config.weights: weights}})


def test_heads_of_pretrained_backbones_start_as_in_the_whole_model(tmp_path: Path) -> None:
    from raypatch.models.build import build_head, build_model
    from raypatch.models.families import find_family
    from raypatch.models.heads import head_of

    weights = tmp_path / "weights.safetensors"
    _write_weights(weights)
    for head in ("linear", "mlp", "attention"):
        config, options = _with_weights(make_images(tmp_path / "own.npz"), weights, head=head)
        built = build_model(config, dimensions=2, outputs=2, files=options.files)
        whole = head_of(built.model, find_family(config.model)).state_dict()
        alone = build_head(config, dimensions=2, outputs=2).state_dict()
        assert whole.keys() == alone.keys()
        assert all(torch.equal(whole[name], alone[name]) for name in whole)


def test_what_changes_features_changes_their_name_and_nothing_else_does() -> None:
    base = {"dataset": "phantom2d", "patch_size": 7, "model": "test_vit", "method": "linear_probe"}

    def key(precision: str = "float32", **fields: object) -> str:
        return feature_key(TrialConfig.model_validate(base | fields), precision)  # type: ignore[arg-type]

    same = [
        {"lr": 1e-2},
        {"seed": 3},
        {"head": "mlp"},
        {"train_fraction": 0.1},
        {"method": "knn", "k": 3},
        {"epochs": 7},
        {"augmentation": "none"},
    ]
    assert {key(**fields) for fields in same} == {key()}
    other = [
        {"dataset": "phantom3d"},
        {"image_size": 14},
        {"resize": "nearest"},
        {"weights": "random"},
        {"weights": "random", "seed": 1},
        {"patch_size": 14},
        {"inflation": "centre"},
        {"head": "attention"},
    ]
    names = {key(**fields) for fields in other} | {key(), key("bfloat16")}
    assert len(names) == len(other) + 2
    mine, theirs = (TrialConfig.model_validate(base | {"dataset": name}) for name in ("phantom2d", "derma"))
    assert backbone_key(mine, dimensions=2) == backbone_key(theirs, dimensions=2)


def test_a_store_gives_whole_arrays_or_none(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features", tmp_path / "backbone")
    assert store.read("train") is None
    with store.locked():
        store.write("train", [torch.ones(2, 3), torch.zeros(1, 3)], 3)
    found = store.read("train")
    assert found is not None
    assert found.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    content = store.array("train").read_bytes()
    store.array("train").write_bytes(content[:-4])
    assert store.read("train") is None

    def broken():  # type: ignore[no-untyped-def]
        yield torch.ones(2, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), store.locked():
        store.write("val", broken(), 3)
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["train.npy"]


def test_two_workers_compute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = raypatch.features.head.FeatureSource._make

    def noted(self, split):  # type: ignore[no-untyped-def]
        made.append(split)
        real(self, split)

    monkeypatch.setattr(raypatch.features.head.FeatureSource, "_make", noted)
    data = make_images(tmp_path / "own.npz")
    trials = [tiny_trial(data, method="knn", k=k) for k in (1, 3)]
    threads = []
    for config, options in trials:
        threads.append(threading.Thread(target=_train, args=(config, options, tmp_path / "run")))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["test", "train", "val"]
    for config, _ in trials:
        assert SweepPaths(tmp_path / "run").trial(config.trial_id()).result.exists()


def test_a_resumed_group_ends_as_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("raypatch.training.stacked.train.CHECKPOINT_SECONDS", 0.0)
    data = make_images(tmp_path / "own.npz")
    trials = [tiny_trial(data, **{**PROBE, "epochs": 5}, lr=lr) for lr in (1e-3, 1e-2)]
    configs, options = [config for config, _ in trials], trials[0][1]
    straight = _train_together(configs, options, tmp_path / "straight")
    paths = {config.trial_id(): SweepPaths(tmp_path / "broken").trial(config.trial_id()) for config in configs}
    for each in paths.values():
        each.folder.mkdir(parents=True)

    def die(trial_id: str, row) -> None:  # type: ignore[no-untyped-def]
        if row.epoch == 3 and trial_id == configs[0].trial_id():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(train_group(configs, paths, options, on_epoch=die, should_stop=lambda: False))
    # The first one has its third epoch on disk, the second one its second.
    broken = _train_together(configs, options, tmp_path / "broken")
    assert [result.test for result in broken] == [result.test for result in straight]
    for config in configs:
        one, other = (SweepPaths(tmp_path / run).trial(config.trial_id()) for run in ("broken", "straight"))
        assert _without_time(tmp_path / "broken", config) == _without_time(tmp_path / "straight", config)
        assert one.predictions.read_bytes() == other.predictions.read_bytes()


def test_a_trial_that_diverges_leaves_the_others_alone(tmp_path: Path) -> None:
    data = make_images(tmp_path / "own.npz")
    # No float32 holds what comes of such a rate.
    trials = [tiny_trial(data, **PROBE, optimizer="sgd", lr=lr) for lr in (1e-3, 1e30)]
    configs, options = [config for config, _ in trials], trials[0][1]
    good, bad = _train_together(configs, options, tmp_path / "run")
    assert good.status == "ok"
    assert "lower lr=1e+30" in str(bad)
    lone = _train_together(configs[:1], options, tmp_path / "lone")[0]
    assert good.test == pytest.approx(lone.test, abs=1e-6)


def test_batch_statistics_and_dropout_stand_still(tmp_path: Path) -> None:
    """A pass leaves the backbone as it was, and two passes give the same features."""
    data = make_images(tmp_path / "own.npz")
    config, options = tiny_trial(
        data, method="knn", k=1, model=f"{__name__}:NormedNets", patch_size=None, precision="float32"
    )
    _train(config, options, tmp_path / "one")
    _train(config, options, tmp_path / "two")
    found = []
    for run in ("one", "two"):
        (array,) = (tmp_path / run / "features").glob("*/train.npy")
        found.append(np.load(array))
        (backbone,) = (tmp_path / run / "features").glob("backbones/*.safetensors")
        from safetensors.torch import load_file

        state = load_file(backbone)
        assert state["body.1.running_mean"].tolist() == [0.0] * 4
        assert state["body.1.num_batches_tracked"] == 0
    assert np.array_equal(found[0], found[1])


class NormedNet(torch.nn.Module):
    """A convolution with batch norm and dropout."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Dropout(0.5)
        )
        self.head = torch.nn.Linear(4, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images).mean((2, 3)))
        return logits


class NormedNets(CountedFamily):
    """The family of NormedNet."""

    name = "normed net"

    def construct(self, config: TrialConfig, *, dimensions: int, outputs: int) -> torch.nn.Module:
        return NormedNet(outputs)


def test_folding_batch_norm_changes_no_feature_but_by_rounding() -> None:
    from raypatch.features.frozen import fold_batch_norm

    torch.manual_seed(0)
    family = NormedNets()
    net = NormedNet(2).eval()
    with torch.no_grad():
        for value in (net.body[1].running_mean, net.body[1].weight, net.body[1].bias):
            value.normal_()
        net.body[1].running_var.uniform_(0.5, 2)  # type: ignore[operator]
    images = torch.randn(3, 3, 8, 8)
    folded = fold_batch_norm(family, net, images, "pooled")
    assert isinstance(folded.body[1], torch.nn.Identity)  # type: ignore[index]
    assert isinstance(net.body[1], torch.nn.BatchNorm2d)
    expected, found = family.pooled(net, images), family.pooled(folded, images)
    assert torch.allclose(expected, found, atol=1e-5)


def test_a_convolution_that_others_read_too_is_not_folded() -> None:
    from raypatch.features.frozen import fold_batch_norm

    class Branched(NormedNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            first = self.body[0](images)
            logits: torch.Tensor = self.head((self.body[1](first) + first).mean((2, 3)))
            return logits

    net = Branched(2).eval()
    with torch.no_grad():
        net.body[1].running_mean.normal_()  # type: ignore[operator]
    assert fold_batch_norm(NormedNets(), net, torch.randn(3, 3, 8, 8), "pooled") is net
