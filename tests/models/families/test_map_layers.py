"""The layer that each family names for Grad-CAM gives a map, and the right one."""

import pytest
import torch
from torch import Tensor

from raypatch.config import TrialConfig
from raypatch.models.build import construct
from raypatch.models.families import find_family


@pytest.mark.parametrize(
    ("model", "patch_size", "layer", "places"),
    [
        ("resnet18", None, "layer4", 2),
        ("tf_efficientnet_lite0", None, "blocks.6", 2),
        ("convnext_atto", None, "stages.3", 2),
        ("swin_tiny_patch4_window7_224", None, "layers.3", 2),
        ("test_vit", 8, "blocks.5.norm1", 8),
        ("torchvision/resnet18", None, "layer4", 2),
        ("torchvision/squeezenet1_1", None, "features", 3),
    ],
)
def test_the_layer_gives_a_map(model: str, patch_size: int | None, layer: str, places: int) -> None:
    fields = {"dataset": "phantom2d", "model": model, "patch_size": patch_size, "image_size": 64}
    with torch.device("meta"):
        built = construct(TrialConfig.model_validate(fields), dimensions=2, outputs=2).eval()
        images = torch.zeros(2, 3, 64, 64)
    found = find_family(model).map_layer(built, dimensions=2)
    assert found is not None
    outputs: list[Tensor] = []
    built.get_submodule(found.name).register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.no_grad():
        built(images)
    made = found.as_map(outputs[0])
    assert (found.name, made.shape[0], *made.shape[2:]) == (layer, 2, places, places)
