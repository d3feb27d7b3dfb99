"""How alike two images are, up to a shift, brightness and contrast."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def compare(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """How alike the images of two stacks (P, *edges) are, pair by pair:
    as a whole, and in their fine detail.

    Each pair is laid over one another at the best whole shift; then the second is explained by the
    first and its slopes, least squares: the first-order change by a shift of a fraction of a pixel,
    besides brightness and contrast. Returned is the multiple correlation of that, over the inner
    part that both see. Fine detail is what a blur takes away: images of one organ are alike as a
    whole, and differ there.
    """
    edge = first.shape[1]
    coarseness = max(1.0, edge / 28)
    reach = 2 if edge >= 24 and first.ndim == 3 else 1
    if coarseness > 1:
        blur = 0.5 * math.sqrt(coarseness**2 - 1)
        first, second = _blur(first, blur), _blur(second, blur)
    fine = first - _blur(first, coarseness), second - _blur(second, coarseness)
    shift = _best_shift(*fine, reach)
    margin = reach + 2
    return _explained(first, second, shift, margin), _explained(*fine, shift, margin)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (P, *edges) along each axis, edges repeated."""
    radius = math.ceil(3 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    for axis in range(1, images.ndim):
        moved = images.movedim(axis, -1)
        lines = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (radius, radius), mode="replicate")
        images = F.conv1d(lines, kernel).reshape(moved.shape).movedim(-1, axis)
    return images


def _window(images: Tensor, shift: Sequence[int], margin: int) -> Tensor:
    """(P, n): the inner part, `margin` from each side, moved by `shift`."""
    part = images
    for axis, by in enumerate(shift, start=1):
        part = part.narrow(axis, margin + by, images.shape[axis] - 2 * margin)
    return part.flatten(1)


def _best_shift(first: Tensor, second: Tensor, reach: int) -> Tensor:
    """(P, dimensions): the shift of the first, up to `reach` along each axis,
    at which both correlate most.
    """
    margin = reach + 2
    shifts = list(itertools.product(range(-reach, reach + 1), repeat=first.ndim - 1))
    fixed = _normalised(_window(second, (0,) * (first.ndim - 1), margin))
    scores = []
    for shift in shifts:
        moved = _normalised(_window(first, shift, margin))
        scores.append((moved * fixed).sum(dim=1))
    return torch.tensor(shifts)[torch.stack(scores).argmax(dim=0)]


def _normalised(rows: Tensor) -> Tensor:
    return F.normalize(rows - rows.mean(dim=1, keepdim=True), dim=1, eps=1e-3)


def _explained(first: Tensor, second: Tensor, shift: Tensor, margin: int) -> Tensor:
    """(P,): the multiple correlation of the second with the shifted first and its slopes;
    0 where it is turned over.
    """
    axes = tuple(range(1, first.ndim))
    result = torch.zeros(len(first))
    for one in shift.unique(dim=0).tolist():
        rows = (shift == torch.tensor(one)).all(dim=1).nonzero()[:, 0]
        part = first[rows]
        causes = [part, *torch.gradient(part, dim=axes)]
        windows = [_window(cause, one, margin) for cause in causes]
        x = torch.stack(windows, dim=-1).double()  # (P, n, 1 + dimensions)
        y = _window(second[rows], (0,) * len(axes), margin).double()
        x = x - x.mean(dim=1, keepdim=True)
        y = y - y.mean(dim=1, keepdim=True)
        squares = x.mT @ x
        products = (x.mT @ y[..., None])[..., 0]
        ridge = 1e-6 * squares.diagonal(dim1=1, dim2=2).sum(dim=1) + 1e-6
        # A little is added to the diagonal: a flat image has no slopes, and nothing to be solved.
        regular = squares + ridge[:, None, None] * torch.eye(x.shape[-1]).double()
        weights = torch.linalg.solve(regular, products)
        explained = (weights * products).sum(dim=1) / (y.square().sum(dim=1) + 1e-6)
        upright = weights[:, 0] > 0
        result[rows] = (explained.clamp(0, 1).sqrt() * upright).float()
    return result
