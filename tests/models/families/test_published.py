"""The backbones that studies of medical images compare, at their native size: size, input, a step, features."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import normalize, to_float
from raypatch.models.build import build_model
from raypatch.models.families import find_family
from raypatch.models.families.timm_image import published_parameters
from raypatch.models.families.timm_names import pretrained_source
from raypatch.storage.own_files import own_file_id

# Name, patch size, native edge, parameters in millions as timm publishes them, width of the pooled features.
# timm's model cards give one digit of these; what it publishes as features alone is counted without a head.
BACKBONES = [
    ("vgg16.tv_in1k", None, 224, 138.36, 4096),
    ("torchvision/alexnet", None, 224, 61.10, 4096),
    ("resnet18.a1_in1k", None, 224, 11.69, 512),
    ("densenet121.ra_in1k", None, 224, 7.98, 1024),
    ("efficientnet_b4.ra2_in1k", None, 320, 19.34, 1792),
    ("vit_base_patch16_224.augreg2_in21k_ft_in1k", 16, 224, 86.57, 768),
    ("vit_base_patch16_224.dino", 16, 224, 85.80, 768),
    ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", 16, 224, 86.57, 768),
    ("eva02_base_patch16_clip_224.merged2b", None, 224, 86.26, 768),
    ("eva02_base_patch14_224.mim_in22k", None, 224, 85.76, 768),
    ("samvit_base_patch16.sa1b", None, 1024, 89.67, 256),
    ("vit_base_patch16_224.sam_in1k", 16, 224, 86.57, 768),
    ("vit_small_patch16_224.dino", 16, 224, 21.67, 384),
    ("vit_small_patch14_dinov2.lvd142m", 14, 518, 22.06, 384),
    ("vit_base_patch14_dinov2.lvd142m", 14, 518, 86.58, 768),
    ("vit_small_patch14_reg4_dinov2.lvd142m", 14, 518, 22.06, 384),
]
MEMORY_GIB = 12
"""What a process may take for a step of one image: Segment Anything at 1024 pixels takes the most."""

TABBY_TO_LYNX = range(281, 288)
"""ImageNet's classes of domestic cats, cougar and lynx."""

ESPRESSO = 967


def configured(model: str, patch_size: int | None, size: int, **fields) -> TrialConfig:
    return TrialConfig(
        dataset="phantom2d", model=model, patch_size=patch_size, image_size=size, **{"weights": "random", **fields}
    )


def picture(size: int) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))


def to_bytes(image: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) uint8."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None]


def seen_by(config: TrialConfig, image: Image.Image) -> torch.Tensor:
    """A picture of the right size as the model sees it, by the path of every trial."""
    mean, std = find_family(config.model).normalisation(config)
    return normalize(to_float(to_bytes(image)), torch.tensor(mean), torch.tensor(std))


@pytest.mark.parametrize(("name", "patch_size", "size", "millions", "width"), BACKBONES)
def test_parameters_are_as_published(name, patch_size, size, millions, width):
    if name.startswith("torchvision/"):
        from torchvision.models import AlexNet_Weights

        found = AlexNet_Weights.DEFAULT.meta["num_params"]
        with torch.device("meta"):
            ours = find_family(name).construct(configured(name, None, size), dimensions=2, outputs=1000)
        assert sum(value.numel() for value in ours.parameters()) == found
    else:
        found = published_parameters(name)
        assert pretrained_source(name).input_size[-1] == size
        classes = pretrained_source(name).num_classes
        if classes:
            family = find_family(name)
            with torch.device("meta"):
                ours = family.construct(configured(name, patch_size, size), dimensions=2, outputs=classes)
            assert sum(value.numel() for value in ours.parameters()) == found
    assert found / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(("name", "patch_size", "size", "millions", "width"), BACKBONES)
def test_normalised_input_is_that_of_the_published_transform(name, patch_size, size, millions, width):
    config = configured(name, patch_size, size, weights="timm")
    image = picture(size)
    if name.startswith("torchvision/"):
        from torchvision.models import AlexNet_Weights

        wanted = AlexNet_Weights.DEFAULT.transforms(resize_size=size)(image)
    else:
        source = pretrained_source(name)
        transform = create_transform(
            source.input_size, mean=source.mean, std=source.std, interpolation=source.interpolation, crop_pct=1.0
        )
        wanted = transform(image)
    torch.testing.assert_close(seen_by(config, image)[0], wanted, rtol=1e-5, atol=1e-5)


STEP = """
import json, resource, sys, torch
from raypatch.config import TrialConfig
from raypatch.models.build import build_model
from raypatch.models.families import find_family
name, patch, size = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
config = TrialConfig(dataset="phantom2d", model=name, patch_size=patch, image_size=size, weights="random")
model, family = build_model(config, dimensions=2, outputs=3, files={}).model, find_family(name)
images = torch.rand(1, 3, size, size)
with torch.no_grad():
    pooled, grid = family.pooled(model.eval(), images), family.feature_map(model, images)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
before = [value.detach().clone() for value in model.get_submodule(family.head_name(model)).parameters()]
loss = torch.nn.functional.cross_entropy(model.train()(images), torch.tensor([1]))
loss.backward()
optimizer.step()
after = list(model.get_submodule(family.head_name(model)).parameters())
moved = any(not torch.equal(one, other) for one, other in zip(before, after))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([pooled.shape[1], list(grid.shape), loss.item(), moved, peak]))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)  # Segment Anything at 1024 pixels: 4e12 products
@pytest.mark.parametrize(("name", "patch_size", "size", "millions", "width"), BACKBONES)
def test_a_step_and_features_at_native_size(name, patch_size, size, millions, width):
    """In a process of its own, so that its memory is its own and goes with it."""
    words = [sys.executable, "-W", "ignore", "-c", STEP, name, json.dumps(patch_size), str(size)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found, grid, loss, moved, peak = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {peak / 2**20:.1f} GiB")
    assert found == width
    assert len(grid) == 4
    assert grid[2] == grid[3] > 1
    assert np.isfinite(loss)
    assert moved
    assert peak < MEMORY_GIB * 2**20


def photographs() -> list[tuple[Image.Image, list[int]]]:
    """Real photographs, with ImageNet's classes of what they show."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "data" / "photos"
    cat, coffee = folder / "cat_chelsea_cc0.jpg", folder / "espresso_coffee_cc0.jpg"
    if not cat.is_file():
        pytest.skip("no photographs")
    return [(Image.open(cat), list(TABBY_TO_LYNX)), (Image.open(coffee), [ESPRESSO])]


def square(image: Image.Image, size: int) -> Image.Image:
    """The middle of a picture, as an .npz of this size would hold it."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("fixture", "name", "patch_size", "head"),
    [
        ("deit_tiny_file", "deit_tiny_patch16_224", 16, "head"),
        ("efficientnet_lite0_file", "tf_efficientnet_lite0", None, "classifier"),
        ("squeezenet_file", "torchvision/squeezenet1_1", None, "classifier.1"),
    ],
)
def test_photographs_get_their_classes(request, fixture, name, patch_size, head):
    """With the published head on what the family pools, and all else the path of a trial."""
    path = request.getfixturevalue(fixture)
    config = configured(name, patch_size, 224, weights=own_file_id(path))
    model = build_model(config, dimensions=2, outputs=1000, files={config.weights: path}).model.eval()
    family, state = find_family(name), load_file(path)
    layer = model.get_submodule(family.head_name(model))
    with torch.no_grad():
        layer.weight.copy_(state[f"{head}.weight"].reshape(layer.weight.shape))
        layer.bias.copy_(state[f"{head}.bias"])
        for image, classes in photographs():
            inputs = seen_by(config, square(image, 224))
            logits = layer(family.pooled(model, inputs))
            assert torch.equal(logits, model(inputs))
            assert int(logits.argmax()) in classes
