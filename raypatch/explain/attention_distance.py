"""How far a model's attention heads look: the mean distance between a patch and what it attends to, in pixels.

After Dosovitskiy et al. (2021) and Raghu et al. (2021): the sum over j of A_ij · p · |g_i - g_j|, with A
the attention, p the edge of a patch in pixels and g a patch's place on its grid; its mean over the
patches i and the images. The class token and registers have no place: they are left out, and each
row sums to 1 again.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypatch.explain.attention import Attention, WatchAttention, grid_edge, patch_places
from raypatch.models.families import AttentionTokens
from raypatch.models.heads import bare_model
from raypatch.models.prepared import PreparedModel, evaluation_batch

BLOCK = 2**22
"""Numbers of one block of attention: 16 MB, whatever the tokens; larger ones leave a processor's cache."""


def attention_distance(
    attention: Attention,
    *,
    dimensions: int,
    before: int = 0,
    patch_size: float = 1.0,
    renormalise: bool = True,
    block: int = BLOCK,
) -> Tensor:
    """Return the mean distance of each image and head, (B, heads), in the unit of `patch_size`.

    before: tokens that precede the patches. renormalise: let each row sum to 1 without them. block:
    numbers of attention that are held at once; exact, whatever it is. Raises ValueError for patches
    that are no square or cube.
    """
    images, heads, tokens, _ = attention.query.shape
    places = patch_size * patch_places(tokens - before, dimensions).to(attention.query.device)
    rows = max(1, block // (images * heads * tokens))
    total = torch.zeros(images, heads, device=places.device)
    for start in range(0, tokens - before, rows):
        own = places[start : start + rows]
        attended = attention.rows(before + start, before + start + len(own))[..., before:]
        # By products it would round near places to one.
        distance = torch.cdist(own, places, compute_mode="donot_use_mm_for_euclid_dist")
        mean = torch.linalg.vecdot(attended, distance)
        total += (mean / attended.sum(dim=-1) if renormalise else mean).sum(dim=-1)
    return total / (tokens - before)


def attention_tokens(prepared: PreparedModel) -> AttentionTokens | None:
    """Return which tokens of the model attend to each other; None where it has no such attention."""
    return prepared.family.attention_tokens(bare_model(prepared.model))


@torch.inference_mode()
def mean_attention_distance(
    prepared: PreparedModel, images: Tensor, *, renormalise: bool = True
) -> NDArray[np.float64]:
    """Return the mean attention distance over images by layer and head, (layers, heads), in pixels of the input.

    images: uint8 (N, C, *spatial). No N x N attention of all heads is ever held. Raises ValueError for
    a model whose patches do not attend to each other, or whose attention cannot be seen.
    """
    found = attention_tokens(prepared)
    patches = prepared.facts.tokens
    if found is None or patches is None:
        raise ValueError("the model has no attention among its patches")
    dimensions = images.ndim - 2
    patch_size = prepared.image_size / grid_edge(patches, dimensions)
    layers: list[Tensor] = []

    def see(attention: Attention) -> None:
        distance = attention_distance(
            attention, dimensions=dimensions, before=found.before, patch_size=patch_size, renormalise=renormalise
        )
        layers.append(distance.double().sum(dim=0).cpu())

    prepared.model.eval()
    total: Tensor | None = None
    for batch in images.split(evaluation_batch(patches, prepared.image_size**dimensions)):
        layers.clear()
        with WatchAttention(found.before + patches, see):
            prepared.model(prepared.inputs(batch.to(prepared.device)))
        if not layers:
            raise ValueError("the model's attention cannot be seen: it does not call scaled_dot_product_attention")
        own = torch.stack(layers)
        total = own if total is None else total + own
    assert total is not None, "there is an image"
    return (total / len(images)).numpy()
