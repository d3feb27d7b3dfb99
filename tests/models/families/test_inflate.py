"""CNNs over volumes: a volume that is constant along depth is its slice to the network, exactly."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from raypatch.config import TrialConfig
from raypatch.models.build import build_model, check_model
from raypatch.models.families import find_family
from raypatch.models.flops import model_facts
from raypatch.models.weights import read_weights_file
from raypatch.storage.own_files import own_file_id

# Plain and bottleneck blocks, pooled shortcuts, a deep stem, groups and gates; TensorFlow's padding.
CASES = [
    ("test_resnet", "repeat"),
    ("resnet18", "repeat"),
    pytest.param("seresnext26d_32x4d", "centre", marks=pytest.mark.slow),
    ("test_efficientnet", "repeat"),
    ("tf_efficientnet_lite0", "centre"),
    pytest.param("mobilenetv3_small_100", "centre", marks=pytest.mark.slow),
    pytest.param("densenet121", "centre", marks=pytest.mark.slow),
]


def configured(model: str, path: Path | None = None, **fields) -> TrialConfig:
    weights = own_file_id(path) if path else "random"
    return TrialConfig(**{"dataset": "phantom3d", "model": model, "weights": weights, "image_size": 32, **fields})


def built(config: TrialConfig, dimensions: int, path: Path | None) -> nn.Module:
    files = {config.weights: path} if path else {}
    return build_model(config, dimensions=dimensions, outputs=3, files=files).model.eval().double()


def image(size: int = 32) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def lively(model: str) -> dict[str, torch.Tensor]:
    """Random weights whose batch statistics and biases are none that let an error vanish."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = timm.create_model(model).state_dict()
        for name, tensor in state.items():
            if tensor.ndim == 1 and tensor.is_floating_point():
                state[name] = 0.5 + torch.rand(tensor.shape)
    return state


@pytest.mark.parametrize(("name", "inflation"), CASES)
def test_volume_constant_along_depth_has_the_logits_of_its_slice(tmp_path, name, inflation):
    path = tmp_path / "weights.safetensors"
    save_file(lively(name), path)
    config = configured(name, path, inflation=inflation)
    flat, deep = built(config, 2, path), built(config, 3, path)
    volume = image()[:, :, None].expand(-1, -1, 32, -1, -1)
    with torch.no_grad():
        expected = flat(image())
        assert expected.std() > 1e-6, "logits that differ"
        # The centre alone is exact; a third of a kernel is rounded where the weights are float32.
        close = 1e-6 if inflation == "centre" else 1e-4
        torch.testing.assert_close(deep(volume), expected, rtol=close, atol=close * expected.abs().max().item())


@pytest.mark.real_data
def test_pretrained_network_sees_the_photograph_in_every_slice(efficientnet_lite0_file):
    path = efficientnet_lite0_file
    config = configured("tf_efficientnet_lite0", path, image_size=48)
    flat, deep = built(config, 2, path), built(config, 3, path)
    volume = image(48)[:, :, None].expand(-1, -1, 48, -1, -1)
    family = find_family(config.model)
    with torch.no_grad():
        torch.testing.assert_close(family.pooled(deep, volume), family.pooled(flat, image(48)), rtol=1e-3, atol=1e-5)
    kernel = read_weights_file(path)["conv_stem.weight"].double()
    torch.testing.assert_close(deep.conv_stem.weight.sum(dim=2), kernel, rtol=1e-5, atol=1e-7)


def test_volumes_that_differ_along_depth_give_other_logits():
    deep = built(configured("test_resnet"), 3, None)
    volume = image()[:, :, None].expand(-1, -1, 32, -1, -1).clone()
    with torch.no_grad():
        before = deep(volume)
        volume[:, :, 20:] = 0
        assert not torch.allclose(deep(volume), before, rtol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_random_kernels_differ_along_depth_and_keep_the_spread_of_their_outputs(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flat = timm.create_model(name).state_dict()
    deep = build_model(configured(name), dimensions=3, outputs=3, files={}).model.state_dict()
    checked = 0
    for key, kernel in deep.items():
        if kernel.ndim == 5 and kernel.shape[-1] > 1 and kernel.numel() > 50_000:
            wanted = flat[key].std() / kernel.shape[-1] ** 0.5
            assert kernel.std() == pytest.approx(wanted.item(), rel=0.05), key
            assert not torch.equal(kernel[:, :, 0], kernel[:, :, 1])
            checked += 1
    assert checked


def test_it_trains_and_its_map_and_cost_have_a_depth():
    config = configured("resnet18")
    model = build_model(config, dimensions=3, outputs=3, files={}).model
    volumes = torch.randn(2, 3, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    model(volumes).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    family = find_family("resnet18")
    assert family.feature_map(model.eval(), volumes[:1].repeat(1, 1, 2, 2, 2)).shape == (1, 512, 2, 2, 2)
    facts = model_facts(config, dimensions=3, outputs=3)
    assert facts.tokens is None
    assert facts.gflops > 10 * model_facts(config, dimensions=2, outputs=3).gflops
    assert family.activations(config, facts, "float32").kept > 32**3 * 4


def test_weights_of_its_own_over_volumes_start_it_again(tmp_path):
    config = configured("test_resnet")
    source = build_model(config, dimensions=3, outputs=3, files={}).model
    path = tmp_path / "deep.safetensors"
    save_file(source.state_dict(), path)
    again = built(configured("test_resnet", path), 3, path)
    torch.testing.assert_close(again.state_dict()["conv1.0.weight"], source.state_dict()["conv1.0.weight"].double())


@pytest.mark.parametrize("name", ["vgg16", "swin_tiny_patch4_window7_224", "resnetblur50", "torchvision/resnet18"])
def test_model_without_a_counterpart_over_volumes_is_refused(name):
    with pytest.raises(ValueError, match="takes images, not volumes"):
        check_model(configured(name, image_size=224), dimensions=3, outputs=2, files={})
