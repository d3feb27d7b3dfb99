"""Models of a trial: pretrained weights at any patch size, in 2D and 3D, the same from the same seed."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import config as timm_layers
from torch import nn

from raypatch.config import TrialConfig
from raypatch.models.build import BuiltModel, build_model, check_model, construct
from raypatch.models.families import find_family
from raypatch.models.weights import read_weights_file
from raypatch.storage.own_files import own_file_id

TINY = "test_vit"  # timm's own test model: 64 wide, 6 blocks
PATCHES = (1, 2, 4, 7, 14, 28)
DEIT = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        save_file(timm.create_model(TINY).state_dict(), path)
    return path


def configured(path: Path | None = None, **fields) -> TrialConfig:
    weights = own_file_id(path) if path else "random"
    return TrialConfig(**{"dataset": "phantom2d", "patch_size": 7, "model": TINY, "weights": weights, **fields})


def built(path: Path | None = None, dimensions: int = 2, outputs: int = 3, **fields) -> BuiltModel:
    config = configured(path, **fields)
    return build_model(config, dimensions=dimensions, outputs=outputs, files={config.weights: path} if path else {})


def images(dimensions: int = 2, size: int = 28, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *[size] * dimensions, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("patch_size", PATCHES)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_patch_size_gives_its_number_of_tokens(tiny_file, dimensions, patch_size):
    model = built(tiny_file, dimensions, patch_size=patch_size).model
    tokens = (28 // patch_size) ** dimensions
    assert model.pos_embed.shape == (1, model.num_prefix_tokens + tokens, 64)
    assert model.patch_embed.proj.weight.shape == (64, 3, *[patch_size] * dimensions)
    if tokens < 1000:
        with torch.no_grad():
            assert model.patch_embed(images(dimensions)).shape == (2, tokens, 64)
            assert model(images(dimensions)).shape == (2, 3)


@pytest.mark.parametrize("patch_size", [1, 4, 28])
def test_images_get_what_timm_makes_of_the_same_weights(tiny_file, patch_size):
    timms = timm.create_model(
        TINY,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tiny_file)},
        img_size=28,
        patch_size=patch_size,
        dynamic_img_size=False,
    ).eval()
    ours = built(tiny_file, patch_size=patch_size).model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            ours.forward_features(images()), timms.forward_features(images()), rtol=1e-4, atol=1e-4
        )


@pytest.mark.real_data
@pytest.mark.parametrize("patch_size", [2, 4, 7, 14, 28])
def test_pretrained_features_equal_timms(deit_tiny_file, patch_size):
    timms = timm.create_model(
        DEIT, pretrained=True, pretrained_cfg_overlay={"file": str(deit_tiny_file)}, img_size=28, patch_size=patch_size
    ).eval()
    ours = built(deit_tiny_file, model=DEIT, patch_size=patch_size).model.eval()
    with torch.no_grad():
        expected = timms.forward_features(images())
        torch.testing.assert_close(ours.forward_features(images()), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.real_data
def test_native_patch_size_reproduces_timms_logits_exactly(deit_tiny_file):
    state = read_weights_file(deit_tiny_file)
    timms = timm.create_model(DEIT).eval()
    timms.load_state_dict(state)
    ours = built(deit_tiny_file, outputs=1000, model=DEIT, patch_size=16, image_size=224).model.eval()
    ours.head.load_state_dict({key: state[f"head.{key}"] for key in ("weight", "bias")})
    with torch.no_grad():
        assert torch.equal(ours(images(size=224)), timms(images(size=224)))


@pytest.mark.real_data
@pytest.mark.parametrize("inflation", ["repeat", "centre"])
@pytest.mark.parametrize("patch_size", PATCHES)
def test_volume_constant_along_depth_is_embedded_like_its_slice(deit_tiny_file, patch_size, inflation):
    fields = {"model": DEIT, "patch_size": patch_size, "inflation": inflation}
    grid, image = 28 // patch_size, images(count=1)
    flat, cubic = built(deit_tiny_file, 2, **fields).model, built(deit_tiny_file, 3, **fields).model
    with torch.no_grad():
        expected = flat.patch_embed(image) + flat.pos_embed[:, 1:]  # (1, g * g, D)
        volume = cubic.patch_embed(image[:, :, None].expand(-1, -1, 28, -1, -1)) + cubic.pos_embed[:, 1:]
    slices = volume.reshape(grid, grid * grid, -1)
    torch.testing.assert_close(slices, expected.expand_as(slices), rtol=1e-4, atol=1e-4)


def test_weights_of_another_patch_size_can_be_used_again(tiny_file, tmp_path):
    fine = built(tiny_file, patch_size=4, image_size=32).model
    path = tmp_path / "fine.safetensors"
    save_file(fine.state_dict(), path)
    again = built(path, patch_size=4, image_size=32, outputs=2).model
    with torch.no_grad():
        assert torch.equal(again.forward_features(images(size=32)), fine.forward_features(images(size=32)))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("pretrained", [True, False])
def test_seed_alone_decides_the_weights_and_the_global_state_stays(tiny_file, dimensions, pretrained):
    path = tiny_file if pretrained else None
    before = torch.get_rng_state()
    first = built(path, dimensions, seed=1).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        second = built(path, dimensions, seed=1).model.state_dict()
    other = built(path, dimensions, seed=2).model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert torch.equal(first["cls_token"], other["cls_token"]) == pretrained


def test_head_starts_the_same_at_every_patch_size(tiny_file):
    coarse, fine = built(tiny_file, patch_size=28).model, built(tiny_file, patch_size=4).model
    assert torch.equal(coarse.head.weight, fine.head.weight)


def test_random_weights_spread_as_timms():
    ours = built(patch_size=4).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        timms = timm.create_model(TINY, img_size=28, patch_size=4, num_classes=3, dynamic_img_size=False)
    for (name, one), other in zip(ours.named_parameters(), timms.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_random_positions_and_cubes_have_the_scale_of_timms():
    flat, cubic = (built(dimensions=dimensions, patch_size=2).model.state_dict() for dimensions in (2, 3))
    assert cubic["pos_embed"].std() == pytest.approx(flat["pos_embed"].std().item(), rel=0.02)
    fan_in = 3 * 2**3
    assert cubic["patch_embed.proj.weight"].abs().max() == pytest.approx(fan_in**-0.5, rel=0.01)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", DEIT])
def test_random_weights_expect_half(model):
    found = built(model=model)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.real_data
def test_file_expects_the_normalisation_of_the_model_and_tag(deit_tiny_file):
    found = built(deit_tiny_file, model=DEIT)
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.std == (0.229, 0.224, 0.225)
    augreg = built(deit_tiny_file, model="vit_tiny_patch16_224")
    assert (augreg.mean, augreg.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("model", ["test_vit", "test_vit2", "test_vit3", "deit3_small_patch16_224"])
def test_class_token_registers_and_every_pooling_work_in_3d(tmp_path, model):
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(model).state_dict(), path)
    found = built(path, 3, model=model, patch_size=14).model
    found(images(3, count=1)).sum().backward()
    assert all(parameter.grad is not None for parameter in found.parameters())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_gradient_checkpointing_changes_no_gradient(tiny_file, dimensions):
    gradients = []
    for enable in (False, True):
        model = built(tiny_file, dimensions, patch_size=14).model
        model.set_grad_checkpointing(enable)
        model(images(dimensions)).square().sum().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_attention_is_fused_whatever_timms_switch_says(monkeypatch):
    monkeypatch.setattr(timm_layers, "_USE_FUSED_ATTN", 0)
    assert not timm.create_model(TINY).blocks[0].attn.fused_attn
    assert all(block.attn.fused_attn for block in built().model.blocks)


def test_transformer_without_a_patch_size_is_refused_with_those_that_fit():
    config = configured(patch_size=None)
    with pytest.raises(ValueError, match="needs a patch_size; image_size=28 allows 28, 14, 7, 4, 2, 1"):
        check_model(config, dimensions=2, outputs=2, files={})


@pytest.mark.parametrize("dimensions", [2, 3])
def test_features_are_what_the_head_makes_logits_of_and_tokens_lie_on_the_grid(dimensions):
    config = configured(patch_size=14)
    model = build_model(config, dimensions=dimensions, outputs=3, files={}).model.eval()
    family = find_family(config.model)
    with torch.no_grad():
        pooled = family.pooled(model, images(dimensions))
        assert torch.equal(model.head(pooled), model(images(dimensions)))
        assert family.tokens(model, images(dimensions)).shape == (2, 2**dimensions, 64)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vit_smal_patch16_224", "unknown model 'vit_smal_patch16_224': did you mean vit_small_patch16_224"),
        ("resnet500", "unknown model 'resnet500': did you mean resnet50"),
        ("0", "unknown model '0': did you mean vit_tiny_patch16_224"),
        ("hf-hub:timm/vit_tiny_patch16_224", "unknown model"),
        ("vit_tiny_patch16_224.foo", "no weights tagged 'foo'; use one of vit_tiny_patch16_224.augreg_in21k_ft_in1k,"),
        ("resnet18", "resnet18 cannot take any patch size: that needs a plain Vision Transformer"),
        ("deit_tiny_distilled_patch16_224", "cannot take any patch size"),
        ("vit_tiny_r_s16_p8_224", "cannot take any patch size"),
        ("vit_relpos_small_patch16_224", "cannot take any patch size"),
        ("eva02_tiny_patch14_224", "cannot take any patch size"),
    ],
)
def test_model_that_does_not_work_is_refused_with_a_way_out(model, message):
    config = configured(model=model)
    for refuse in (check_model, build_model):
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            refuse(config, dimensions=2, outputs=2, files={})


def test_check_takes_no_memory_and_construct_follows_the_default_device():
    with torch.device("meta"):
        model = construct(configured(model="vit_base_patch16_224", patch_size=1), dimensions=3, outputs=2)
    assert {value.device.type for value in model.parameters()} == {"meta"}
    assert isinstance(model.head, nn.Linear)
    check_model(configured(), dimensions=3, outputs=2, files={})
