"""Which places of an image a model looks at: attention of its class token, and Grad-CAM.

Maps are floats from 0, (B, *grid) or (B, *spatial); only how they compare within an image means anything.
Attention knows no class: it shows what the model gathers, whatever it then says. Grad-CAM (Selvaraju
et al., ICCV 2017) is about the class that was predicted.
"""

import importlib.util

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raypatch.explain.attention import Attention, WatchAttention, grid_edge
from raypatch.explain.attention_distance import attention_tokens
from raypatch.models.families import MapLayer
from raypatch.models.heads import HeadedModel, bare_model
from raypatch.models.prepared import PreparedModel, evaluation_batch

GRAD_CAM_BATCH = 8
"""Images of a pass back: it keeps what a pass forward makes."""

INSTALL = "Grad-CAM needs an extra: pip install 'raypatch[explain]'"


def has_class_attention(prepared: PreparedModel) -> bool:
    """Return whether the model's head reads a class token, whose attention then says what it gathers."""
    found = attention_tokens(prepared)
    reads_tokens = isinstance(prepared.model, HeadedModel) and prepared.model.kind == "tokens"
    return found is not None and found.class_token and not reads_tokens


@torch.inference_mode()
def class_attention(prepared: PreparedModel, images: Tensor) -> NDArray[np.float32]:
    """Return how much the class token attends to each patch in the last block: (N, heads, *grid), each map's sum 1.

    images: uint8 (N, C, *spatial). Raises ValueError for a model without a class token that its head
    reads.
    """
    if not has_class_attention(prepared):
        raise ValueError("the model has no class token that its head reads")
    found, patches = attention_tokens(prepared), prepared.facts.tokens
    assert found is not None, "see has_class_attention"
    assert patches is not None, "a model with a class token has patches"
    dimensions = images.ndim - 2
    last: list[Attention] = []

    def see(attention: Attention) -> None:
        last[:] = [attention]

    prepared.model.eval()
    maps = []
    for batch in images.split(evaluation_batch(patches, prepared.image_size**dimensions)):
        with WatchAttention(found.before + patches, see):
            prepared.model(prepared.inputs(batch.to(prepared.device)))
        if not last:
            raise ValueError("the model's attention cannot be seen: it does not call scaled_dot_product_attention")
        attended = last[0].rows(0, 1)[:, :, 0, found.before :]
        attended = attended / attended.sum(dim=-1, keepdim=True)
        maps.append(attended.unflatten(-1, (grid_edge(patches, dimensions),) * dimensions).cpu())
    return torch.cat(maps).numpy()


def map_layer(prepared: PreparedModel, dimensions: int) -> MapLayer | None:
    """Return the layer that Grad-CAM weighs, named as in the family's own model; None where that has none."""
    return prepared.family.map_layer(bare_model(prepared.model), dimensions=dimensions)


def can_grad_cam() -> bool:
    """Return whether the grad-cam package is installed."""
    return importlib.util.find_spec("pytorch_grad_cam") is not None


def grad_cam(
    prepared: PreparedModel, images: Tensor, classes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Return Grad-CAM of these classes at the size of the model's input, (N, *spatial), 0 to 1, and the grid that
    it was made on.

    images: uint8 (N, C, *spatial). classes: (N,). A map without anything that speaks for its class is
    0 everywhere. Raises ValueError for a model without a layer for it, and where the grad-cam package
    is not installed.
    """
    layer = map_layer(prepared, images.ndim - 2)
    if layer is None:
        raise ValueError("the model has no layer that Grad-CAM could weigh")
    if not can_grad_cam():
        raise ValueError(INSTALL)
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = prepared.model.eval()
    grid: tuple[int, ...] = ()

    def as_map(output: Tensor) -> Tensor:
        nonlocal grid
        made = layer.as_map(output)
        grid = tuple(made.shape[2:])
        return made

    cam = GradCAM(model, [bare_model(model).get_submodule(layer.name)], reshape_transform=as_map)
    maps = []
    try:
        for batch, own in zip(images.split(GRAD_CAM_BATCH), _split(classes), strict=True):
            targets = [ClassifierOutputTarget(int(each)) for each in own]
            maps.append(cam(prepared.inputs(batch.to(prepared.device)), targets))
    finally:
        cam.activations_and_grads.release()
        model.zero_grad(set_to_none=True)
    return np.concatenate(maps).astype(np.float32), grid


def _split(classes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [classes[start : start + GRAD_CAM_BATCH] for start in range(0, len(classes), GRAD_CAM_BATCH)]


def random_maps(count: int, grid: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Return maps of independent uniform numbers: (count, *grid)."""
    return np.random.default_rng(seed).random((count, *grid), dtype=np.float32)


def centre_maps(count: int, grid: tuple[int, ...]) -> NDArray[np.float32]:
    """Return maps that fall from 1 at the centre to 0 at the corners: (count, *grid)."""
    axes = [np.linspace(-1, 1, edge, dtype=np.float32) for edge in grid]
    squares = np.add.reduce(np.meshgrid(*(axis**2 for axis in axes), indexing="ij"))
    return np.broadcast_to(1 - np.sqrt(squares / len(grid)), (count, *grid)).copy()


def enlarge(maps: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Bring maps (N, *grid) to edge `size`, (bi- or tri-)linearly."""
    mode = "bilinear" if maps.ndim == 3 else "trilinear"
    enlarged = F.interpolate(torch.from_numpy(maps)[:, None], size=(size,) * (maps.ndim - 1), mode=mode)
    larger: NDArray[np.float32] = enlarged[:, 0].numpy()
    return larger


def half_mass(maps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the smallest set of places of each map (N, *spatial) that holds half of its mass, or more.

    Of places with the same value the first are taken. A map of zeros is taken for an even one.
    """
    flat = _evened(maps).reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    mass = np.take_along_axis(flat, order, axis=1).cumsum(axis=1)
    # The place with which half is reached belongs to the set.
    needed = mass - np.take_along_axis(flat, order, axis=1) < 0.5 * mass[:, -1:] * (1 - 1e-9)
    chosen = np.zeros(flat.shape, bool)
    np.put_along_axis(chosen, order, needed, axis=1)
    return chosen.reshape(maps.shape)


def _evened(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """The maps in double precision, those of zeros alone as ones."""
    total = maps.reshape(len(maps), -1).sum(axis=1)
    exact = maps.astype(np.float64)
    exact[total == 0] = 1.0
    return exact
