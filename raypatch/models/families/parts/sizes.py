"""Which image sizes a network takes, found by a pass over tensors without values."""

from collections.abc import Callable

import torch
from torch import nn


def why_not(model: nn.Module, image_size: int) -> str:
    """Why a model on `meta` cannot take images of this edge, in the model's own words; empty where it can."""
    image = torch.empty(2, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            model.eval()(image)
    # Whatever a model raises for a size that it was not made for.
    except Exception as error:
        return str(error).rstrip(".") or type(error).__name__
    return ""


def check_size(
    model: str,
    image_size: int,
    *,
    stride: int,
    native: int,
    reason: Callable[[int], str],
) -> None:
    """Raise ValueError, with sizes that fit, for an image below the model's stride or that it cannot take.

    native: the size of its weights. reason: of a size, why it cannot be taken, or empty.
    """
    if image_size < stride:
        told = f"image_size={image_size} is below the stride of {model}, {stride}: its last map would not be one whole"
        told += " place"
    elif reason(image_size):
        told = f"model {model} does not take image_size={image_size} ({reason(image_size)})"
    else:
        return
    # The nearest ones, and that of the weights.
    below = image_size // stride * stride
    fitting = []
    for size in sorted({below - stride, below, below + stride, native}):
        if size >= stride and not reason(size):
            fitting.append(f"{size} (native)" if size == native else str(size))
    raise ValueError(f"{told}; use {', '.join(fitting) or native}")
