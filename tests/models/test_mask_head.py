"""The head of a segmentation: its rates, a batch of one image, its costs, and which models have a map."""

import pytest
import torch

from raypatch.config import TrialConfig
from raypatch.models.build import build_model, check_model
from raypatch.models.flops import model_facts
from raypatch.models.heads import HeadedModel
from raypatch.models.mask_head import MaskHead, atrous_rates
from raypatch.models.memory import training_bytes


def _config(**fields: object) -> TrialConfig:
    values: dict[str, object] = {"dataset": "phantom2d", "model": "test_vit", "patch_size": 4, "image_size": 16}
    return TrialConfig.model_validate(values | {"weights": "random", "task": "segmentation"} | fields)


def test_rates_are_deeplabs_at_512_pixels_and_reach_as_far_elsewhere() -> None:
    assert atrous_rates(512 // 16) == (6, 12, 18)
    assert atrous_rates(512 // 8) == (12, 24, 36)
    assert atrous_rates(2) == (1, 1, 1)


@pytest.mark.parametrize(
    "fields",
    [{}, {"model": "resnet10t", "patch_size": None, "image_size": 64}, {"patch_size": 16}],
)
def test_every_model_with_a_map_gives_logits_of_pixels_for_one_image_too(fields: dict[str, object]) -> None:
    config = _config(**fields)
    model = build_model(config, dimensions=2, outputs=3, files={}).model.train()
    edge = config.image_size
    for images in (1, 2):
        logits = model(torch.rand(images, 3, edge, edge))
        assert logits.shape == (images, 3, edge, edge)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.head.parameters())  # type: ignore[union-attr]


def test_a_seed_fixes_the_head_and_torchvisions_layers_are_its_own() -> None:
    first = build_model(_config(), dimensions=2, outputs=1, files={}).model
    second = build_model(_config(), dimensions=2, outputs=1, files={}).model
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    head = MaskHead(8, 4, 2, 16).eval()
    reference = DeepLabHead(8, 2, atrous_rates(4)).eval()
    reference.load_state_dict(head.layers.state_dict())
    features = torch.rand(2, 8, 4, 4)
    wanted = torch.nn.functional.interpolate(reference(features), size=(16, 16), mode="bilinear")
    assert torch.equal(head(features), wanted)


def test_its_cost_counts() -> None:
    plain = model_facts(_config(task=None), dimensions=2, outputs=2)
    masks = model_facts(_config(), dimensions=2, outputs=1)
    head = MaskHead(64, 4, 1, 16)
    own = sum(parameter.numel() for parameter in head.parameters())
    model = build_model(_config(), dimensions=2, outputs=1, files={}).model
    assert masks.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert masks.parameters > own
    assert masks.gflops > plain.gflops
    few = training_bytes(_config(batch_size=2), masks, "float32", micro_batch=2)
    many = training_bytes(_config(batch_size=8), masks, "float32", micro_batch=8)
    assert many > few > training_bytes(_config(task=None, batch_size=2), plain, "float32", micro_batch=2)


def test_a_model_without_a_map_is_refused() -> None:
    config = _config(model="own_members:SmallNets", patch_size=None)
    with pytest.raises(ValueError, match=r"has no map of features, which a segmentation needs; use a plain Vision"):
        check_model(config, dimensions=2, outputs=1, files={})


def test_a_cnn_is_dilated_to_a_finer_map_with_the_same_weights() -> None:
    coarse = build_model(_config(model="resnet10t", patch_size=None, image_size=64), dimensions=2, outputs=1, files={})
    config = _config(model="resnet10t", patch_size=None, image_size=64, output_stride=8)
    fine = build_model(config, dimensions=2, outputs=1, files={})
    assert isinstance(fine.model, HeadedModel)
    assert fine.model.family.feature_map(fine.model.body.eval(), torch.rand(1, 3, 64, 64)).shape[2:] == (8, 8)
    for name, tensor in coarse.model.state_dict().items():
        assert fine.model.state_dict()[name].shape == tensor.shape
    assert '"output_stride":8' in config.canonical_json()


@pytest.mark.parametrize(
    ("model", "patch_size", "message"),
    [
        ("test_vit", 4, "output_stride=8 is for CNNs of timm, such as resnet50, not for test_vit"),
        ("densenet121", None, "model densenet121 has no output_stride=8; leave it out, or use a CNN that can be"),
    ],
)
def test_a_model_that_cannot_be_dilated_is_refused(model: str, patch_size: int | None, message: str) -> None:
    config = _config(model=model, patch_size=patch_size, image_size=64, output_stride=8)
    with pytest.raises(ValueError, match=message):
        check_model(config, dimensions=2, outputs=1, files={})
