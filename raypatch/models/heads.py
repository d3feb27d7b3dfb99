"""Heads other than a family's own: an MLP on the pooled features, attention pooling over the tokens, masks."""

import math
from typing import Literal

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.families import Family
from raypatch.models.mask_head import MaskHead
from raypatch.tasks import reads_masks

FeatureKind = Literal["pooled", "tokens", "map"]
"""What a head is given of each image: one vector, one per token, or one per place of a grid."""

HEAD_DIM = 64
"""Width of one head of attention, as in the Vision Transformers themselves."""

BODY_FIELDS = ("model", "image_size", "patch_size", "output_stride")
"""Fields of a trial that decide its model's shape, but for the head."""

_SHAPES: dict[tuple[object, ...], tuple[int, ...]] = {}
"""Shapes of features by architecture, dimensions and outputs: a sweep asks for the same ones for each of its trials."""


class MLPHead(nn.Sequential):
    """Features (B, width) -> a hidden layer of the same width with GELU -> logits."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs))


class AttentionHead(nn.Module):
    """Tokens (B, tokens, width) -> one learned query attends to them -> logits.

    The pooling is timm's, as its models have it with global_pool="map".
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        # The heads of attention must divide the width, whatever the model.
        heads = math.gcd(width, max(1, width // HEAD_DIM))
        self.pool = AttentionPoolLatent(width, num_heads=heads, norm_layer=nn.LayerNorm)
        # One query makes a small product, and plain products can be done for several heads at once.
        self.pool.fused_attn = False
        self.classifier = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(tokens))
        return logits


class HeadedModel(nn.Module):
    """A family's model, its own head taken off, under another head.

    kind: which of the model's features the head is given. Of a map it makes logits of pixels.
    """

    def __init__(self, family: Family, body: nn.Module, head: nn.Module, kind: FeatureKind) -> None:
        super().__init__()
        self.family, self.kind = family, kind
        body.set_submodule(family.head_name(body), nn.Identity())
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(features_of(self.family, self.body, images, self.kind))
        return logits


def bare_model(model: nn.Module) -> nn.Module:
    """Return the family's own model, which a head of another kind may stand on."""
    return model.body if isinstance(model, HeadedModel) else model


def head_of(model: nn.Module, family: Family) -> nn.Module:
    """Return the part of a model that makes logits of features."""
    if isinstance(model, HeadedModel):
        return model.head
    return model.get_submodule(family.head_name(model))


def feature_kind(config: TrialConfig) -> FeatureKind:
    """Return what the head of a trial is given."""
    if reads_masks(config.task):
        return "map"
    return "tokens" if config.head == "attention" else "pooled"


def features_of(family: Family, body: nn.Module, images: Tensor, kind: FeatureKind) -> Tensor:
    """Return features (B, width), (B, tokens, width) or (B, width, rows, columns) of normalised images
    (B, 3, *spatial).
    """
    features = _ask_features(family, body, images, kind)
    assert features is not None, "feature_shape refuses"
    return features


def _ask_features(family: Family, body: nn.Module, images: Tensor, kind: FeatureKind) -> Tensor | None:
    if kind == "pooled":
        return family.pooled(body, images)
    return family.feature_map(body, images) if kind == "map" else family.tokens(body, images)


def feature_shape(
    config: TrialConfig,
    family: Family,
    *,
    dimensions: int,
    outputs: int,
) -> tuple[int, ...]:
    """Return the shape of one image's features: (width,), (tokens, width) or (width, rows, columns).

    It is seen on a pass over tensors without values. Raises ValueError where the head needs tokens
    or a map and the model has none.
    """
    key = (*(getattr(config, name) for name in BODY_FIELDS), feature_kind(config), dimensions, outputs)
    if key not in _SHAPES:
        _SHAPES[key] = _see_shape(config, family, dimensions=dimensions, outputs=outputs)
    return _SHAPES[key]


def _see_shape(config: TrialConfig, family: Family, *, dimensions: int, outputs: int) -> tuple[int, ...]:
    with torch.device("meta"):
        body = family.construct(config, dimensions=dimensions, outputs=outputs).eval()
        # Two, since some layers refuse a batch of one.
        images = torch.zeros(2, 3, *(config.image_size,) * dimensions)
    with torch.no_grad():
        kind = feature_kind(config)
        found = _ask_features(family, body, images, kind)
    if found is None and kind == "map":
        raise ValueError(
            f"model {config.model} has no map of features, which a segmentation needs; use a plain Vision Transformer"
            " such as deit_tiny_patch16_224, or a CNN of timm or torchvision such as resnet50"
        )
    if found is None:
        raise ValueError(f"head={config.head} pools tokens, and model {config.model} has none; use linear or mlp")
    return tuple(found.shape[1:])


def has_own_head(config: TrialConfig) -> bool:
    """Whether a trial's model keeps its family's own head."""
    return config.head == "linear" and not reads_masks(config.task)


def make_head(config: TrialConfig, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Make a head that is not the family's own, on torch's default device. shape: of an image's features."""
    if reads_masks(config.task):
        width, edge, _ = shape
        return MaskHead(width, edge, outputs, config.image_size)
    width = shape[-1]
    return AttentionHead(width, outputs) if config.head == "attention" else MLPHead(width, outputs)
