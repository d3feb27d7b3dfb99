"""timm's other image models: what they take and refuse, their weights at other sizes, features and costs."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from raypatch.config import TrialConfig
from raypatch.models.build import build_model, check_model
from raypatch.models.families import find_family
from raypatch.models.families.timm_names import choice_of_tag
from raypatch.models.flops import model_facts
from raypatch.storage.own_files import own_file_id

# timm's own small models for tests: a CNN, one whose head is a convolution, Swin-like, EVA.
WITH_A_GRID = ("resnetv2_50x1_bit", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224")
SMALL = ("test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_nfnet", "test_mambaout")


def configured(model: str, **fields) -> TrialConfig:
    return TrialConfig(**{"dataset": "phantom2d", "model": model, "weights": "random", "image_size": 64, **fields})


def images(size: int = 64, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def saved(path: Path, model: str, **arguments) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        save_file(timm.create_model(model, **arguments).state_dict(), path)
    return path


@pytest.mark.parametrize("name", [*SMALL, *WITH_A_GRID])
def test_head_makes_logits_of_the_pooled_features(name):
    size = 224 if "224" in name else 64
    config = configured(name, image_size=size)
    model = build_model(config, dimensions=2, outputs=3, files={}).model.eval()
    family = find_family(name)
    with torch.no_grad():
        pooled = family.pooled(model, images(size))
        head = model.get_submodule(family.head_name(model))
        assert pooled.ndim == 2
        torch.testing.assert_close(head(pooled), model(images(size)))


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_tiny_r_s16_p8_224"])
def test_transformer_has_tokens_and_their_grid(name):
    config = configured(name, image_size=448)
    model = build_model(config, dimensions=2, outputs=3, files={}).model.eval()
    family = find_family(name)
    with torch.no_grad():
        tokens, grid = family.tokens(model, images(448)), family.feature_map(model, images(448))
    edge = grid.shape[-1]
    assert tokens.shape == (2, edge**2, grid.shape[1])
    assert torch.equal(grid[0, :, 0, 1], tokens[0, 1]), "rows slowest"
    facts = model_facts(config, dimensions=2, outputs=3)
    assert facts.tokens == edge**2
    assert 0 < facts.gflops_without_attention < facts.gflops


def test_maps_come_with_channels_first():
    config = configured("swin_tiny_patch4_window7_224")
    model = build_model(config, dimensions=2, outputs=3, files={}).model.eval()
    family = find_family(config.model)
    with torch.no_grad():
        assert family.feature_map(model, images()).shape == (2, 768, 2, 2)
        assert family.tokens(model, images()) is None


def test_cost_of_a_convolutional_network_is_that_of_its_paper():
    facts = model_facts(configured("resnet18", image_size=224), dimensions=2, outputs=1000)
    assert facts.gflops == pytest.approx(2 * 1.814, rel=0.001), "He et al. 2016, table 1: 1.8e9 multiply-accumulates"
    assert (facts.tokens, facts.parameters) == (None, 11_689_512)
    assert facts.gflops_without_attention == facts.gflops


def test_attention_is_told_apart_at_one_token_pair_after_the_other():
    small, large = (
        model_facts(configured("eva02_tiny_patch14_224", image_size=size), dimensions=2, outputs=2)
        for size in (112, 224)
    )
    attention = [facts.gflops - facts.gflops_without_attention for facts in (small, large)]
    # 12 blocks of width 192: two products of every pair of tokens, the class token included.
    for facts, each in zip((small, large), attention, strict=True):
        assert each == pytest.approx(2e-9 * 12 * 2 * 192 * (facts.tokens + 1) ** 2, rel=1e-6)


# timm's own resampling takes old ways through torch.
@pytest.mark.filterwarnings("ignore:torch.searchsorted")
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224"])
def test_weights_of_another_size_are_resampled_as_timm_does(tmp_path, name):
    path = saved(tmp_path / "weights.safetensors", name)
    size = 112
    timms = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, img_size=size, num_classes=3
    ).eval()
    config = configured(name, image_size=size, weights=own_file_id(path))
    files = {config.weights: path}
    check_model(config, dimensions=2, outputs=3, files=files)
    ours = build_model(config, dimensions=2, outputs=3, files=files).model.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(images(size)), timms.forward_features(images(size)))


def test_values_that_no_weights_file_holds_are_computed(tmp_path):
    """Rotary frequencies: a model that was made without memory would have whatever lay there."""
    name = "eva02_tiny_patch14_224"
    path = saved(tmp_path / "weights.safetensors", name)
    config = configured(name, image_size=224, weights=own_file_id(path))
    before = torch.get_rng_state()
    ours = build_model(config, dimensions=2, outputs=3, files={config.weights: path}).model
    assert torch.equal(torch.get_rng_state(), before)
    stored = ours.state_dict()
    computed = [key for key, _ in ours.named_buffers() if key not in stored]
    assert computed
    timms = dict(timm.create_model(name).named_buffers())
    for key in computed:
        assert torch.equal(ours.get_buffer(key), timms[key])


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "resnet18",
            {"patch_size": 7, "image_size": 28},
            "cannot take any patch size.* Leave patch_size=7 out",
        ),
        ("eva02_tiny_patch14_224", {"patch_size": 16}, "cannot take any patch size.*rotary"),
        ("resnet18", {"image_size": 28}, r"image_size=28 is below the stride of resnet18, 32.*use 32, 224 \(native\)"),
        ("vgg16", {"image_size": 28}, "below the stride of vgg16"),
        ("eva02_tiny_patch14_224", {"image_size": 64}, r"patches of 14 pixels do not divide it\); use 42, 56, 70, 224"),
        ("vit_tiny_r_s16_p8_224", {"image_size": 112}, "does not take image_size=112"),
        ("maxvit_tiny_tf_224", {"image_size": 100}, "does not take image_size=100 .*use 64, 96, 128, 224"),
        ("resnet18.a9", {}, "model resnet18 has no weights tagged 'a9'; use one of resnet18.a1_in1k, "),
        ("deit_tiny_distilled_patch16_224", {"image_size": 224}, "is no image classifier with one head.*head_dist"),
        ("resnet50_clip", {"image_size": 224}, "is no image classifier with one head .*stands before it"),
    ],
)
def test_what_a_model_cannot_take_is_refused_with_what_it_can(name, fields, message):
    with pytest.raises(ValueError, match=message):
        check_model(configured(name, **fields), dimensions=2, outputs=2, files={})


def test_weights_of_another_family_are_refused(tmp_path):
    path = saved(tmp_path / "other.safetensors", "test_efficientnet")
    config = configured("test_resnet", weights=own_file_id(path))
    with pytest.raises(ValueError, match=r"does not hold weights of test_resnet: conv1.*Name the file's own"):
        check_model(config, dimensions=2, outputs=2, files={config.weights: path})


def test_mean_and_deviation_follow_the_tag():
    family = find_family("efficientnet_b4")
    named = {
        "tf_efficientnet_lite0.in1k": 0.5,
        "eva02_base_patch16_clip_224.merged2b": 0.48145466,
        "resnet18d.ra4_e3600_r224_in1k": 0.5,
        "resnet18d.ra2_in1k": 0.485,
    }
    for name, mean in named.items():
        assert family.normalisation(configured(name, weights="timm"))[0][0] == mean
        assert family.normalisation(configured(name))[0] == (0.5,) * 3, "random weights expect nothing"


def test_a_name_without_a_tag_says_which_weights_are_taken():
    assert choice_of_tag("resnet18") == (
        "model resnet18 names no tag: of 7 weights timm's first is taken, resnet18.a1_in1k"
    )
    for without_choice in ("resnet18.a1_in1k", "test_mambaout", "torchvision/alexnet", "my_module:MyFamily"):
        assert choice_of_tag(without_choice) == ""
