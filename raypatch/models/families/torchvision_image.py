"""Image classifiers of torchvision, named torchvision/NAME: AlexNet, VGG, SqueezeNet, ResNet and others.

torchvision's models are asked for once such a name is there.
"""

import difflib
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.families.counted import CountedFamily
from raypatch.models.families.parts.heads import on_grid, token_layer
from raypatch.models.families.parts.sizes import check_size, why_not
from raypatch.models.families.protocol import MapLayer
from raypatch.models.hub import WAY_OUT

PREFIX = "torchvision/"

LAST_MAP = ("features", "layers", "conv5")
"""What makes the last map in models whose pool is no module."""

LEFT_OUT = ("googlenet", "inception_v3", "maxvit_t", "regnet_", "vit_h_14")
"""Two have more heads than one, the others cannot be made without memory or at a size of one's own; timm
has its own of each.
"""

OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""How DenseNet's published files still name what is called norm1 and conv1 today."""


class TorchvisionImage(CountedFamily):
    """The family of torchvision's classifiers; a tag names weights: torchvision/resnet50.IMAGENET1K_V1."""

    name = "torchvision model"

    def takes(self, model: str) -> bool:
        return model.startswith(PREFIX)

    def check_fields(self, config: TrialConfig, *, dimensions: int) -> None:
        """Raise ValueError for a patch size, volumes, an unknown name or tag, and a size that does not fit."""
        super().check_fields(config, dimensions=dimensions)
        self.check_name(config.model)
        if dimensions != 2:
            raise ValueError(f"model {config.model} takes images, not volumes; for those use timm's resnet18")
        check_size(
            config.model,
            config.image_size,
            stride=_stride(_split(config.model)[0]),
            native=native_size(config.model),
            reason=functools.partial(_why_not, _split(config.model)[0]),
        )

    def check_name(self, model: str) -> None:
        """Raise ValueError for a name or a tag that torchvision does not have."""
        name, tag = _split(model)
        known = list_names()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or known[:3]
            raise ValueError(
                f"unknown model {model!r}: did you mean {', '.join(PREFIX + each for each in near)}?",
            )
        tags = [weights.name for weights in _weights_enum(name)]
        if tag and tag not in tags:
            raise ValueError(f"model {PREFIX}{name} has no weights tagged {tag!r}; use one of {', '.join(tags)}")

    def construct(self, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
        return _construct(_split(config.model)[0], outputs)

    def head_name(self, model: nn.Module) -> str:
        """The last linear layer."""
        linear: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        return linear[-1]

    def normalisation(self, config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Those of torchvision's weights under the name and tag, also for an own file; 0.5 and 0.5 for random ones."""
        if config.weights == "random":
            return super().normalisation(config)
        transforms = published_weights(config.model).transforms()
        return tuple(transforms.mean), tuple(transforms.std)

    def fetch_weights(self, config: TrialConfig) -> None:
        self.pretrained_state(config)

    def pretrained_state(self, config: TrialConfig) -> Mapping[str, Tensor]:
        """Read torchvision's file, downloaded once into torch's own folder. Raises ValueError."""
        weights = published_weights(config.model)
        try:
            state = torch.hub.load_state_dict_from_url(
                weights.url,
                map_location="cpu",
                progress=False,
                check_hash=True,
                weights_only=True,
            )
        except (OSError, RuntimeError) as error:
            raise ValueError(f"cannot get torchvision's weights {weights}: {error}; {WAY_OUT}") from error
        return rename_old(state)

    def tokens(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return a Vision Transformer's patches after its last layer; None for other networks."""
        encoder = getattr(model, "encoder", None)
        if encoder is None:
            return None
        seen: Tensor = _output_of(encoder, model, images)
        # The class token comes first.
        return seen[:, 1:]

    def feature_map(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return the map before the pool; a Vision Transformer's patches on their grid."""
        tokens = self.tokens(model, images)
        if tokens is not None:
            return on_grid(tokens, dimensions=2)
        pool = getattr(model, "avgpool", None)
        if pool is not None:
            return _input_of(pool, model, images)
        for name in LAST_MAP:
            if hasattr(model, name):
                return _output_of(model.get_submodule(name), model, images)
        return None

    def map_layer(self, model: nn.Module, *, dimensions: int) -> MapLayer | None:
        """Return what makes the last map; of a Vision Transformer the last layer's first norm."""
        encoder = getattr(model, "encoder", None)
        if encoder is not None:
            last, _ = list(encoder.layers.named_children())[-1]
            return token_layer(model, f"encoder.layers.{last}.ln_1", 1, dimensions)
        # Swin's permute brings its channels to where others have them.
        for name in ("layer4", "permute", *LAST_MAP):
            if isinstance(getattr(model, name, None), nn.Module):
                return MapLayer(name, lambda output: output)
        return None


@functools.cache
def list_names() -> list[str]:
    """The classifiers of torchvision that the family takes."""
    from torchvision import models

    return [name for name in models.list_models(module=models) if not name.startswith(LEFT_OUT)]


def published_weights(model: str) -> Any:
    """torchvision's weights under a model's name and tag; without a tag those it calls its default."""
    name, tag = _split(model)
    weights = _weights_enum(name)
    return weights[tag] if tag else weights.DEFAULT


def native_size(model: str) -> int:
    """The edge of the images that the model's weights were made for, pixels."""
    return int(published_weights(model).transforms().crop_size[0])


def rename_old(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state under the names of today."""
    return {OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def _split(model: str) -> tuple[str, str]:
    """Name and tag of torchvision/NAME.TAG; no tag is empty."""
    name, _, tag = model.removeprefix(PREFIX).partition(".")
    return name, tag


def _weights_enum(name: str) -> Any:
    from torchvision import models

    return models.get_model_weights(name)


def _construct(name: str, outputs: int) -> nn.Module:
    from torchvision import models

    model: nn.Module = models.get_model(name, weights=None, num_classes=outputs)
    if isinstance(model, models.SqueezeNet):
        # torchvision convolves, cuts off below zero and pools last: no layer makes logits of pooled
        # features. A linear layer on the pooled map does, under the convolution's name.
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model.classifier = nn.Sequential(pool, nn.Linear(model.classifier[1].in_channels, outputs))
    return model


def _construct_empty(name: str) -> nn.Module:
    with torch.device("meta"):
        return _construct(name, 2)


@functools.cache
def _why_not(name: str, image_size: int) -> str:
    return why_not(_construct_empty(name), image_size)


@functools.cache
def _stride(name: str) -> int:
    """How many pixels of an edge become one place of the last map."""
    size = native_size(name)
    with torch.no_grad():
        image = torch.empty(1, 3, size, size, device="meta")
        last = TorchvisionImage().feature_map(_construct_empty(name).eval(), image)
    assert last is not None, "each of torchvision's has a map"
    # Each layer that makes a map smaller halves it; without padding a place or two are lost.
    return int(2 ** round(math.log2(size / last.shape[-1])))


def _input_of(module: nn.Module, model: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model(images)
    finally:
        hook.remove()
    return seen[0]


def _output_of(module: nn.Module, model: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, inputs, output: seen.append(output))
    try:
        model(images)
    finally:
        hook.remove()
    return seen[0]
