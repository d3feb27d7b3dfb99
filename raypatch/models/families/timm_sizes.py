"""How a timm model is told the size of its images."""

import functools
from typing import Any

import timm
import torch
from torch import nn

from raypatch.models.families.parts.sizes import check_size, why_not
from raypatch.models.families.timm_names import pretrained_source


def check_timm_size(model: str, image_size: int) -> None:
    """Raise ValueError, with sizes that fit, for one that the model cannot take."""

    def reason(size: int) -> str:
        return _try_size(model, size)[1]

    check_size(model, image_size, stride=model_stride(model), native=native_size(model), reason=reason)


def size_arguments(model: str, image_size: int) -> dict[str, Any]:
    """What timm's constructor must be told so that the model takes images of this edge, which fits."""
    return dict(_try_size(model, image_size)[0])


def native_size(model: str) -> int:
    """The edge of the images that the model's weights were made for, pixels."""
    return pretrained_source(model).input_size[-1]


@functools.cache
def model_stride(model: str) -> int:
    """How many pixels of an edge become one place of the last map."""
    built = construct_empty(model)
    reductions = [int(stage["reduction"]) for stage in getattr(built, "feature_info", [])]
    return max([_patch_edge(built), *reductions])


@functools.lru_cache(maxsize=8)
def construct_empty(model: str, **arguments: Any) -> nn.Module:
    """A model of timm's without memory, with two outputs. All who ask share it: leave it as it is."""
    with torch.device("meta"):
        built: nn.Module = timm.create_model(model, num_classes=2, in_chans=3, **arguments)
    return built


def _patch_edge(model: nn.Module) -> int:
    """The edge of the patches into which a transformer cuts its images; 1 for other models."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "patch_size", 1)
    return int(size[0]) if isinstance(size, tuple) else int(size)


@functools.cache
def _try_size(model: str, image_size: int) -> tuple[dict[str, Any], str]:
    """The constructor's arguments that let the model take this size, and an empty text; else the reason."""
    reason = why_not(construct_empty(model), image_size)
    # Some with a grid resample their positions as they go; the others are told the size.
    arguments: dict[str, Any] = {}
    if reason and pretrained_source(model).fixed_input_size:
        arguments = {"img_size": image_size}
        try:
            reason = why_not(construct_empty(model, **arguments), image_size)
        # Whatever a constructor raises for a size that it cannot make, or that it does not ask for.
        except Exception as error:
            reason = reason if isinstance(error, TypeError) else str(error) or type(error).__name__
    edge = _patch_edge(construct_empty(model))
    if not reason and image_size % edge:
        # timm would leave out the pixels of a last patch that is not whole.
        reason = f"its patches of {edge} pixels do not divide it"
    return arguments, reason
