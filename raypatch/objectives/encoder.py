"""A backbone that takes images of several sizes, and leaves out blocks at random."""

import functools
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.build import construct
from raypatch.models.families import Family, find_family


@runtime_checkable
class ResizableFamily(Protocol):
    """A family whose models hold tensors that are bound to an image size, and can be brought to another."""

    def tensors_at_size(self, model: nn.Module, spatial: tuple[int, ...]) -> Mapping[str, Tensor]:
        """Return by name the tensors that stand in for the model's own with images of this spatial shape.

        They have a gradient that reaches the model's own. Makes the model ready to take such images.
        """
        ...


class Encoder(nn.Module):
    """A family's model without its head: normalised images (B, 3, *spatial) to pooled features (B, width).

    edge: of the images that the model was built for.
    """

    def __init__(self, family: Family, body: nn.Module, edge: int) -> None:
        super().__init__()
        self.family, self.edge = family, edge
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        return self.family.pooled(self.body, images)


def encode(encoder: Encoder, images: Tensor) -> Tensor:
    """Features (B, width) of images (B, 3, *spatial) of any size that the family can take."""
    spatial = tuple(images.shape[2:])
    if spatial[0] == encoder.edge or not isinstance(encoder.family, ResizableFamily):
        features: Tensor = encoder(images)
        return features
    tensors = encoder.family.tensors_at_size(encoder.body, spatial)
    named = {f"body.{name}": tensor for name, tensor in tensors.items()}
    # The model itself stays as it is: resampled tensors stand in for its own in this one call.
    resized: Tensor = torch.func.functional_call(encoder, named, (images,))
    return resized


def without_head_layer(family: Family, model: nn.Module) -> nn.Module:
    """Take the head off a family's model."""
    model.set_submodule(family.head_name(model), nn.Identity())
    return model


def drop_paths(body: nn.Module, rate: float) -> None:
    """Let the blocks of a Vision Transformer be left out at random (Huang et al. 2016): the first one never, the last
    one for `rate` of the images, those between as their place says. Other models stay as they are.
    """
    blocks = [block for block in body.modules() if hasattr(block, "drop_path1") and hasattr(block, "drop_path2")]
    for number, block in enumerate(blocks):
        share = rate * number / max(1, len(blocks) - 1)
        if share:
            block.drop_path1, block.drop_path2 = DropPath(share), DropPath(share)


def check_sizes(config: TrialConfig, edge: int, *, dimensions: int, outputs: int) -> None:
    """Raise ValueError for a model that takes no images of `edge` pixels beside those of its own size."""
    # A seed changes no shape, and a check is a pass.
    kind = config.model_copy(update={"seed": 0})
    problem = _problem_with_size(kind, edge, dimensions, outputs)
    if problem:
        raise ValueError(
            f"model {config.model} takes images of one size alone ({problem}), and local views have {edge} pixels;"
            " set local_views=0, or take a plain Vision Transformer or a CNN"
        )


@functools.cache
def _problem_with_size(config: TrialConfig, edge: int, dimensions: int, outputs: int) -> str:
    family = find_family(config.model)
    with torch.device("meta"):
        model = construct(config, dimensions=dimensions, outputs=outputs).eval()
        encoder = Encoder(family, model, config.image_size)
        images = torch.zeros(2, 3, *(edge,) * dimensions)
    try:
        with torch.no_grad():
            encode(encoder, images)
    # A model may refuse in any way.
    except (AssertionError, RuntimeError, ValueError) as error:
        return str(error).strip().splitlines()[0] or type(error).__name__
    return ""
