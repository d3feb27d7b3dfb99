"""Which image sizes a timm model takes, found by a pass over tensors without values."""

import functools

import timm
import torch
from torch import nn

from raypatch.models.families.timm_names import pretrained_source


def size_arguments(model: str, image_size: int) -> dict[str, int]:
    """What timm's constructor must be told so that the model takes images of this edge.

    Raises ValueError, with sizes that fit, for an image below the model's stride or one that its
    grid cannot take.
    """
    stride = model_stride(model)
    if image_size < stride:
        raise ValueError(
            f"image_size={image_size} is below the stride of {model}, {stride}: its last map would have no"
            f" place of its own; use {_word_sizes(model, image_size)}"
        )
    arguments, reason = _try_size(model, image_size)
    if arguments is None:
        raise ValueError(
            f"model {model} does not take image_size={image_size} ({reason}); use {_word_sizes(model, image_size)}"
        )
    return dict(arguments)


def native_size(model: str) -> int:
    """The edge of the images that the model's weights were made for, pixels."""
    return pretrained_source(model).input_size[-1]


@functools.cache
def model_stride(model: str) -> int:
    """How many pixels of an edge become one place of the last map."""
    built = construct_empty(model)
    reductions = [int(stage["reduction"]) for stage in getattr(built, "feature_info", [])]
    return max([_patch_edge(built), *reductions])


def construct_empty(model: str, **arguments: int) -> nn.Module:
    """A model of timm's without memory, with two outputs."""
    with torch.device("meta"):
        built: nn.Module = timm.create_model(model, num_classes=2, in_chans=3, **arguments)
    return built


def _patch_edge(model: nn.Module) -> int:
    """The edge of the patches into which a transformer cuts its images; 1 for other models."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "patch_size", 1)
    return int(size[0]) if isinstance(size, tuple) else int(size)


@functools.cache
def _try_size(model: str, image_size: int) -> tuple[dict[str, int] | None, str]:
    """The constructor's arguments that let the model take this size; None with the reason if nothing does."""
    choices: list[dict[str, int]] = [{}]
    if pretrained_source(model).fixed_input_size:
        # Some with a grid resample their positions as they go; the others are told the size.
        choices.append({"img_size": image_size})
    reason = ""
    for arguments in choices:
        try:
            built = construct_empty(model, **arguments).eval()
            edge = _patch_edge(built)
            # timm would leave out the pixels of a last patch that is not whole.
            if image_size % edge:
                return None, f"its patches of {edge} pixels do not divide it"
            with torch.no_grad():
                built(torch.empty(2, 3, image_size, image_size, device="meta"))
        # Whatever a model raises for a size that it was not made for.
        except Exception as error:
            reason = str(error).rstrip(".") or type(error).__name__
        else:
            return arguments, ""
    return None, reason


def _word_sizes(model: str, image_size: int) -> str:
    """Sizes that fit, in words: the nearest ones, and that of the weights."""
    stride = model_stride(model)
    native = native_size(model)
    below = image_size // stride * stride
    near = {below - stride, below, below + stride, native}
    fitting = [size for size in sorted(near) if size >= stride and _try_size(model, size)[0] is not None]
    words = ", ".join(f"{size} (native)" if size == native else str(size) for size in fitting)
    return words or f"image_size={native}"
