"""How good a map is: against a mask of what it should show, or by what the model says without its best places.

Pointing game (Zhang et al., IJCV 2018); deletion and insertion (Petsiuk et al., BMVC 2018).
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypatch.models.prepared import PreparedModel, evaluation_batch

STEPS = 10
"""Steps in which an image is deleted or inserted."""


def pointing(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return whether each map's maximum lies in its mask, (N,): 1 or 0, or the share of equal maxima that do.

    maps, masks: (N, *spatial). NaN for an empty mask. Random maps reach the mask's share of the image.
    """
    flat, inside = _flat(maps, masks)
    highest = flat == flat.max(axis=1, keepdims=True)
    hits = (highest & inside).sum(axis=1) / highest.sum(axis=1)
    return np.where(inside.any(axis=1), hits, np.nan)


def mass_ratio(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of each map's mass that lies in its mask over the mask's share of the image, (N,).

    1 is chance, as for a map of zeros. NaN for an empty mask.
    """
    flat, inside = _flat(maps, masks)
    total = flat.sum(axis=1)
    empty = total == 0
    share = (flat * inside).sum(axis=1) / np.where(empty, 1, total)
    area = inside.mean(axis=1)
    ratio = share / np.where(area == 0, np.nan, area)
    return np.where(empty & (area > 0), 1.0, ratio)


def _flat(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if maps.shape != masks.shape:
        raise ValueError(f"masks of shape {masks.shape} do not fit maps of shape {maps.shape}")
    return maps.reshape(len(maps), -1).astype(np.float64), masks.reshape(len(masks), -1)


@torch.inference_mode()
def deletion_insertion(
    prepared: PreparedModel,
    images: Tensor,
    maps: NDArray[np.float32],
    classes: NDArray[np.int64],
    probabilities: Callable[[Tensor], Tensor],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the areas under the probability of each image's class as its pixels go and come, best first: (N,) both.

    In STEPS equal parts of the pixels, from all to none and back; what is not there has the image's
    mean colour. A good map deletes fast (a small area) and inserts fast (a large one). images: uint8
    (N, C, *spatial). maps: (N, *spatial) in the model's size. classes: (N,). probabilities: of logits.
    """
    prepared.model.eval()
    places = maps[0].size
    size = max(1, evaluation_batch(prepared.facts.tokens, places) // 2)
    ranks = _ranks(maps)
    curves = np.zeros((2, STEPS + 1, len(images)))
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        whole = prepared.inputs(images[rows].to(prepared.device))
        blank = whole.flatten(2).mean(dim=2).reshape(*whole.shape[:2], *[1] * (whole.ndim - 2)).expand_as(whole)
        own = torch.from_numpy(ranks[rows]).to(prepared.device)[:, None]
        target = torch.from_numpy(classes[rows]).to(prepared.device)[:, None]
        for step in range(STEPS + 1):
            taken = own < round(places * step / STEPS)
            both = torch.cat([torch.where(taken, blank, whole), torch.where(taken, whole, blank)])
            probability = probabilities(prepared.model(both).float()).gather(1, target.repeat(2, 1))
            curves[:, step, rows] = probability.reshape(2, -1).cpu().numpy()
    # By the trapezoid rule: the first and last step count half.
    areas = (curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2
    return areas[0], areas[1]


def _ranks(maps: NDArray[np.float32]) -> NDArray[np.int64]:
    """The place of each pixel in its map's order, the highest first: (N, *spatial), from 0."""
    flat = maps.reshape(len(maps), -1)
    # Pixels of one value come in an order by chance: by rows, a map of zeros would delete from the top.
    shuffled = np.random.default_rng(0).permutation(flat.shape[1])
    order = shuffled[np.argsort(-flat[:, shuffled], axis=1, kind="stable")]
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(maps.shape)
