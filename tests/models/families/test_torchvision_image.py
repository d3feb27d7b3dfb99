"""torchvision's classifiers by torchvision/NAME."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from raypatch.config import TrialConfig
from raypatch.models.build import build_model, check_model
from raypatch.models.families import find_family
from raypatch.models.families.torchvision_image import rename_old
from raypatch.storage.own_files import own_file_id


def configured(name: str, **fields) -> TrialConfig:
    model = f"torchvision/{name}"
    return TrialConfig(**{"dataset": "phantom2d", "model": model, "weights": "random", "image_size": 64, **fields})


def images(size: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "width", "grid"),
    [
        ("alexnet", 4096, (256, 1, 1)),
        ("squeezenet1_1", 512, (512, 3, 3)),
        ("resnet18", 512, (512, 2, 2)),
        ("mobilenet_v3_small", 1024, (576, 2, 2)),
        ("shufflenet_v2_x0_5", 1024, (1024, 2, 2)),
    ],
)
def test_head_makes_logits_of_the_pooled_features(name, width, grid):
    config = configured(name)
    model, family = build_model(config, dimensions=2, outputs=3, files={}).model.eval(), find_family(config.model)
    with torch.no_grad():
        pooled = family.pooled(model, images())
        assert pooled.shape == (2, width)
        assert torch.equal(model.get_submodule(family.head_name(model))(pooled), model(images()))
        assert family.feature_map(model, images()).shape == (2, *grid)
        assert family.tokens(model, images()) is None


def test_alexnet_pools_what_its_seventh_layer_gives_the_eighth():
    config = configured("alexnet", image_size=224)
    model, family = build_model(config, dimensions=2, outputs=3, files={}).model.eval(), find_family(config.model)
    with torch.no_grad():
        maps = model.avgpool(model.features(images(224))).flatten(1)
        assert torch.equal(family.pooled(model, images(224)), model.classifier[:6](maps))


def test_a_file_of_torchvisions_names_starts_it_and_keeps_its_map(tmp_path):
    path = tmp_path / "squeezenet.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        source = models.squeezenet1_1().eval()
    save_file(source.state_dict(), path)
    config = configured("squeezenet1_1", weights=own_file_id(path))
    model = build_model(config, dimensions=2, outputs=3, files={config.weights: path}).model.eval()
    with torch.no_grad():
        assert torch.equal(find_family(config.model).feature_map(model, images()), source.features(images()))


def test_older_files_of_densenet_get_the_names_of_today():
    old = {"features.denseblock1.denselayer2.norm.1.weight": torch.ones(1), "features.norm0.weight": torch.ones(1)}
    assert list(rename_old(old)) == ["features.denseblock1.denselayer2.norm1.weight", "features.norm0.weight"]


def test_mean_and_deviation_are_those_of_torchvisions_weights():
    config = configured("alexnet", weights="timm")
    assert find_family(config.model).normalisation(config) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("alexnett", {}, "unknown model 'torchvision/alexnett': did you mean torchvision/alexnet"),
        (
            "resnet50.IMAGENET1K_V9",
            {},
            "no weights tagged 'IMAGENET1K_V9'; use one of IMAGENET1K_V1, IMAGENET1K_V2",
        ),
        ("alexnet", {"patch_size": 4}, "has no patches: leave patch_size=4 out"),
        ("alexnet", {"image_size": 28}, "below the stride of torchvision/alexnet, 32"),
        ("vit_b_16", {}, r"does not take image_size=64 .*use 224 \(native\)"),
    ],
)
def test_what_it_cannot_take_is_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        check_model(configured(name, **fields), dimensions=2, outputs=2, files={})


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "resnet.safetensors"
    save_file(models.resnet18().state_dict(), path)
    config = configured("alexnet", weights=own_file_id(path))
    with pytest.raises(ValueError, match="does not hold weights of torchvision/alexnet"):
        check_model(config, dimensions=2, outputs=2, files={config.weights: path})
