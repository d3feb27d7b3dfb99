"""Weights from files and from the hub's cache: read safely, checked against the model, refused with a way out."""

import argparse
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from raypatch.config import TrialConfig
from raypatch.models import hub as timm_hub
from raypatch.models.build import build_model, check_model
from raypatch.models.weights import read_weights_file, without_wrapping
from raypatch.storage.own_files import own_file_id

TINY = "test_vit"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return timm.create_model(TINY).state_dict()


def stored(folder: Path, state: dict[str, torch.Tensor], name: str = "own.safetensors") -> Path:
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def configured(path: Path, **fields) -> TrialConfig:
    return TrialConfig(
        **{"dataset": "phantom2d", "patch_size": 14, "model": TINY, "weights": own_file_id(path), **fields}
    )


def refused(config: TrialConfig, files: dict[str, Path], *, message: str) -> None:
    for function in (check_model, build_model):
        with pytest.raises(ValueError, match=message):
            function(config, dimensions=2, outputs=2, files=files)


def test_pth_and_safetensors_and_wrappers_agree(tmp_path, state):
    paths = [
        stored(tmp_path, state),
        stored(tmp_path, state, "plain.pth"),
        stored(tmp_path, {"model": state}, "model.pth"),
        stored(tmp_path, {"state_dict": state, "epoch": 3}, "lightning.pth"),
        stored(tmp_path, {f"module.{key}": value for key, value in state.items()}, "parallel.pth"),
    ]
    for path in paths:
        found = read_weights_file(path)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
        shapes = read_weights_file(path, device="meta")
        assert {key: value.shape for key, value in shapes.items()} == {key: value.shape for key, value in state.items()}
        assert {value.device.type for value in shapes.values()} == {"meta"}
        config = configured(path)
        check_model(config, dimensions=3, outputs=2, files={config.weights: path})


def test_file_without_a_head_is_enough(tmp_path, state):
    path = stored(tmp_path, {key: value for key, value in state.items() if not key.startswith("head.")})
    config = configured(path)
    found = build_model(config, dimensions=2, outputs=2, files={config.weights: path}).model.state_dict()
    assert torch.equal(found["blocks.5.mlp.fc2.weight"], state["blocks.5.mlp.fc2.weight"])


def test_half_precision_file_gives_a_float32_model(tmp_path, state):
    path = stored(tmp_path, {key: value.half() for key, value in state.items()})
    config = configured(path)
    model = build_model(config, dimensions=2, outputs=2, files={config.weights: path}).model
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_another_architecture_is_refused_with_the_first_differences(tmp_path, state):
    path = stored(tmp_path, state)
    config = configured(path, model="deit_tiny_patch16_224")
    message = r"does not hold weights of deit_tiny_patch16_224: cls_token is \(1, 1, 64\), not \(1, 1, 192\)"
    refused(config, {config.weights: path}, message=message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.bias"), "norm.bias is missing. Name the file's own architecture with --model"),
        (lambda state: state.update(dist_token=torch.zeros(1, 1, 64)), "dist_token is unknown"),
        (
            lambda state: state.update(pos_embed=torch.zeros(1, 52, 64)),
            r"pos_embed is .*, not \(1, 1 \+ a square, 64\)",
        ),
        (lambda state: state.update(pos_embed=torch.zeros(1, 1, 64)), r"pos_embed is .*, not \(1, 1 \+ a square, 64\)"),
        (
            lambda state: state.update({"patch_embed.proj.weight": torch.zeros(64, 3, 4, 4, 4)}),
            r"patch_embed.proj.weight is \(64, 3, 4, 4, 4\), not \(64, 3, any, any\)",
        ),
        (lambda state: state.clear(), "cls_token is missing; pos_embed is missing; .* ..."),
    ],
)
def test_altered_state_is_refused(tmp_path, state, change, message):
    altered = dict(state)
    change(altered)
    path = stored(tmp_path, altered)
    config = configured(path)
    refused(config, {config.weights: path}, message=message)


@pytest.mark.parametrize("name", ["own.safetensors", "own.pth"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "noise"])
def test_damaged_file_is_refused(tmp_path, state, name, damage):
    path = stored(tmp_path, state, name)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "noise": b"noise" * 999}[damage])
    config = configured(path)
    refused(config, {config.weights: path}, message="own")


def test_python_objects_are_never_loaded(tmp_path, state):
    path = stored(tmp_path, {"model": state, "args": argparse.Namespace(lr=1)}, "own.pth")
    config = configured(path)
    refused(config, {config.weights: path}, message=r"raypatch loads no other Python objects; save the model's state")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"model": {"a": "b"}}])
def test_file_without_a_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "own.pth"
    torch.save(content, path)
    config = configured(path)
    refused(config, {config.weights: path}, message="holds no state dict")


def test_file_that_moved_counts_and_one_that_changed_does_not(tmp_path, state):
    path = stored(tmp_path, state)
    config = configured(path)
    moved = path.rename(tmp_path / "elsewhere.safetensors")
    check_model(config, dimensions=2, outputs=2, files={config.weights: moved})
    refused(config, {}, message=r"not known where file:own@[0-9a-f]{12} lies; give the file's path: --weights FILE")
    refused(config, {config.weights: path}, message="bring it back, or its content now lies in .*: give --weights")
    stored(tmp_path, {**state, "cls_token": state["cls_token"] + 1}, moved.name)
    refused(config, {config.weights: moved}, message="has changed since it was named")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty hub cache, behind which there is no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_hub_weights_without_network_are_refused_with_a_way_out(hub):
    config = TrialConfig(dataset="phantom2d", patch_size=14, model=TINY)
    message = (
        r"no network, and the weights timm/test_vit.r160_in1k were never downloaded here .* with --weights FILE, or"
    )
    refused(config, {}, message=message)


def test_model_without_hub_weights_is_refused(hub):
    name = next(name for name in timm.list_models("vit_*") if not timm.models.get_pretrained_cfg(name).has_weights)
    refused(
        TrialConfig(dataset="phantom2d", patch_size=14, model=name), {}, message=f"no pretrained weights for {name};"
    )


def test_downloaded_hub_weights_need_no_network(hub, state):
    repository = hub / "models--timm--test_vit.r160_in1k"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    stored(snapshot, state, "model.safetensors")
    config = TrialConfig(dataset="phantom2d", patch_size=16, image_size=160, model=TINY)
    check_model(config, dimensions=2, outputs=2, files={})
    before = torch.get_rng_state()
    found = build_model(config, dimensions=2, outputs=2, files={}).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(found[key], state[key]) for key in state if not key.startswith("head."))


@pytest.mark.network
def test_hub_weights_are_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = TrialConfig(dataset="phantom2d", patch_size=14, model=TINY)
    try:
        check_model(config, dimensions=2, outputs=2, files={})
    except ValueError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(timm_hub, "_require_hub", lambda repository: pytest.fail("asked the hub again"))
    build_model(config, dimensions=2, outputs=2, files={})


PREFIXES = ["_orig_mod.", "module.", "module._orig_mod.", "model.", "net.", "backbone.encoder."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_names_come_out_of_whatever_they_were_wrapped_in(prefix):
    wanted = timm.create_model("test_vit").state_dict()
    state = {prefix + name: tensor for name, tensor in wanted.items()}
    beside = {"criterion.weight": torch.ones(2)} if prefix not in ("module.", "_orig_mod.") else {}
    found = without_wrapping(state | beside, wanted)
    assert list(found) == list(wanted)
    assert all(found[name] is tensor for name, tensor in wanted.items())


def test_names_that_fit_stay_and_two_models_in_a_file_are_not_mixed():
    wanted = timm.create_model("test_vit").state_dict()
    assert without_wrapping(wanted, wanted) == wanted
    both = {f"{model}.{name}": tensor for model in ("student", "teacher") for name, tensor in wanted.items()}
    assert without_wrapping(both, wanted) == both
    assert without_wrapping({"x": torch.ones(1)}, wanted) == {"x": torch.ones(1)}
