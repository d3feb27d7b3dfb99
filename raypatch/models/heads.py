"""Heads other than a family's own: an MLP on the pooled features, attention pooling over the tokens."""

import math
from typing import Literal

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.families import Family

FeatureKind = Literal["pooled", "tokens"]
"""What a head is given of each image: one vector, or one per token."""

HEAD_DIM = 64
"""Width of one head of attention, as in the Vision Transformers themselves."""

BODY_FIELDS = ("model", "image_size", "patch_size")
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

    kind: which of the model's features the head is given.
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
    return "tokens" if config.head == "attention" else "pooled"


def features_of(family: Family, body: nn.Module, images: Tensor, kind: FeatureKind) -> Tensor:
    """Return features (B, width) or (B, tokens, width) of normalised images (B, 3, *spatial)."""
    if kind == "pooled":
        return family.pooled(body, images)
    tokens = family.tokens(body, images)
    assert tokens is not None, "feature_shape refuses"
    return tokens


def feature_shape(
    config: TrialConfig,
    family: Family,
    *,
    dimensions: int,
    outputs: int,
) -> tuple[int, ...]:
    """Return the shape of one image's features: (width,) or (tokens, width).

    It is seen on a pass over tensors without values. Raises ValueError where the head needs tokens
    and the model has none.
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
        found = family.tokens(body, images) if kind == "tokens" else family.pooled(body, images)
    if found is None:
        raise ValueError(f"head={config.head} pools tokens, and model {config.model} has none; use linear or mlp")
    return tuple(found.shape[1:])


def make_head(config: TrialConfig, width: int, outputs: int) -> nn.Module:
    """Make a head that is not the family's own, on torch's default device."""
    return AttentionHead(width, outputs) if config.head == "attention" else MLPHead(width, outputs)
