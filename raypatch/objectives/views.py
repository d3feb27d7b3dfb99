"""Views of an image: crops of it at random places and sizes, their colours changed; whole batches on their device.

Random numbers are drawn on the CPU for a whole epoch (`draw_view`), a fixed number per image, and only then used
(`make_view`): a seed fixes what happens to each image, whatever the device and however the batch is divided.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import augment, draw_parameters
from raypatch.objectives import colours
from raypatch.trial_fields.objective import local_size

CROP_ATTEMPTS = 10
CROP_RATIO = 4 / 3
"""Largest ratio of a crop's edges."""

JITTER_SHARE, BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.8, 0.4, 0.4, 0.2, 0.1
GREY_SHARE = 0.2
SIGMAS = (0.1, 2.0)
"""Of the blur, in pixels of an image of 224."""

Change = Callable[[Tensor, Tensor], Tensor]
"""Images (B, C, *spatial) and strengths (B,) to images."""

ORDERS = tuple(itertools.permutations(range(4)))
JITTERS = (colours.adjust_brightness, colours.adjust_contrast, colours.adjust_saturation, colours.adjust_hue)


@dataclass(frozen=True)
class ViewKind:
    """How a view is drawn.

    size: its edge, pixels. scale: share of the area that a crop has, of a volume of that of each slice. blurred,
    solarised: probabilities. sigmas: of the blur, pixels.
    """

    size: int
    scale: tuple[float, float]
    blurred: float
    solarised: float
    sigmas: tuple[float, float]


def view_kinds(config: TrialConfig) -> list[ViewKind]:
    """Return the views of a trial: two global ones, then the local ones.

    DINO's (Caron et al. 2021, arXiv 2104.14294, appendix E, and its code): global crops of .4 to 1 of the area,
    local ones of .05 to .4. Sizes and blur are brought from 224 pixels to the trial's image size.
    """
    edge = config.image_size
    sigmas = (SIGMAS[0] * edge / 224, SIGMAS[1] * edge / 224)
    kinds = [ViewKind(edge, (0.4, 1.0), 1.0, 0.0, sigmas), ViewKind(edge, (0.4, 1.0), 0.1, 0.2, sigmas)]
    local = local_size(edge, config.patch_size)
    if local is not None:
        kinds += [ViewKind(local, (0.05, 0.4), 0.5, 0.0, sigmas)] * config.local_views
    return kinds


@dataclass(frozen=True)
class DrawnView:
    """What happens to each of N images, on the CPU.

    box: (N, D, 2) float32, start and extent of the crop along each axis, pixels. turn: in 2D bool (N,), mirrored left
    to right; in 3D int64 (N, 4), see `augment`. colour: (N, 8) float32: which order of the jitter (-1 for none), its
    four strengths, whether grey, sigma of the blur (0 for none), whether solarised.
    """

    box: Tensor
    turn: Tensor
    colour: Tensor

    def take(self, rows: slice | Tensor) -> "DrawnView":
        """Return what happens to some of the images."""
        return DrawnView(self.box[rows], self.turn[rows], self.colour[rows])


def draw_view(
    kind: ViewKind, count: int, edge: int, generator: torch.Generator, *, dimensions: int, mirror_safe: bool
) -> DrawnView:
    """Draw a view of each of `count` images of so many pixels along each edge.

    Volumes are turned and mirrored as `draw_parameters` does; where not mirror_safe, nothing is mirrored.
    """
    box = _draw_boxes(kind, count, edge, generator, dimensions)
    if dimensions == 3:
        turn = draw_parameters(count, (kind.size,) * 3, generator, mirror_safe=mirror_safe)
    else:
        turn = (torch.rand(count, generator=generator) < 0.5) & mirror_safe
    return DrawnView(box, turn, _draw_colours(kind, count, generator))


def make_view(images: Tensor, drawn: DrawnView, kind: ViewKind) -> Tensor:
    """Make the view of each image: (B, C, *spatial) floats 0..1 to (B, C, *size)."""
    cropped = crop(images, drawn.box.to(images.device), kind.size)
    if images.ndim == 5:
        cropped = augment(cropped, drawn.turn.to(images.device))
    else:
        mirrored = drawn.turn.to(images.device).view(-1, 1, 1, 1)
        cropped = torch.where(mirrored, cropped.flip(-1), cropped)
    return change_colours(cropped, drawn.colour, kind)


def crop(images: Tensor, box: Tensor, size: int) -> Tensor:
    """Cut a box out of each image (B, C, *spatial) and bring it to `size` along each axis.

    box: (B, D, 2), start and extent, pixels. Bilinear, low-pass filtered where it shrinks, as torchvision's
    resized_crop; that is a product with one matrix along each axis, in 2D and 3D alike.
    """
    for place in range(box.shape[1]):
        axis = 2 + place
        matrix = _crop_matrix(box[:, place, 0], box[:, place, 1], images.shape[axis], size)
        images = colours.along_axis(images, matrix, axis)
    return images


def change_colours(images: Tensor, colour: Tensor, kind: ViewKind) -> Tensor:
    """Jitter, grey, blur, solarise, each where it was drawn. colour: (B, 8) on the CPU, see DrawnView."""
    # What was drawn lies on the CPU, so that choosing images by it never waits for the device.
    order, strengths = colour[:, 0].long(), colour[:, 1:5]
    images = images.clone()
    table = torch.tensor(ORDERS)
    for turn in range(4):
        change_of = torch.where(order >= 0, table[order.clamp(min=0), turn], -1)
        for number, change in enumerate(JITTERS):
            _change_some(images, change_of == number, change, strengths[:, number])
    _change_some(images, colour[:, 5] > 0, lambda some, _: colours.to_grey(some).expand_as(some), colour[:, 5])
    reach = min(colours.blur_reach(kind.sigmas[1]), kind.size - 1)
    _change_some(images, colour[:, 6] > 0, lambda some, sigma: colours.blur(some, sigma, reach=reach), colour[:, 6])
    _change_some(images, colour[:, 7] > 0, lambda some, _: colours.solarise(some), colour[:, 7])
    return images


def _change_some(images: Tensor, chosen: Tensor, change: Change, strength: Tensor) -> None:
    """Change the chosen images in place."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        there = rows.to(images.device)
        images[there] = change(images[there], strength[rows].to(images.device))


def _draw_boxes(kind: ViewKind, count: int, edge: int, generator: torch.Generator, dimensions: int) -> Tensor:
    """Boxes of the first of the attempts that fits into the image, or the whole image if none does."""
    # In float64, and the same number for every image, whatever comes of them.
    draws = torch.rand(count, CROP_ATTEMPTS, 1 + dimensions, generator=generator, dtype=torch.float64)
    area = (kind.scale[0] + draws[:, :, 0] * (kind.scale[1] - kind.scale[0])) * edge**2
    # Evenly in the logarithm. In 2D, as torchvision draws it, height / width is between 3/4 and 4/3.
    stretch = (draws[:, :, 1:] - 0.5) * math.log(CROP_RATIO)
    if dimensions == 2:
        stretch = torch.stack([stretch[:, :, 0], -stretch[:, :, 0]], dim=2)
    else:
        stretch = stretch - stretch.mean(dim=2, keepdim=True)
    extents = (area.sqrt()[:, :, None] * stretch.exp()).round().clamp(min=1)  # (N, attempts, D)
    fits = (extents <= edge).all(dim=2)
    first = fits.byte().argmax(dim=1)
    extent = extents[torch.arange(count), first]
    extent[~fits.any(dim=1)] = edge
    start = (torch.rand(count, dimensions, generator=generator, dtype=torch.float64) * (edge - extent + 1)).floor()
    return torch.stack([start, extent], dim=2).float()


def _draw_colours(kind: ViewKind, count: int, generator: torch.Generator) -> Tensor:
    draws = torch.rand(count, 11, generator=generator, dtype=torch.float64)
    order = (draws[:, 0] * len(ORDERS)).floor()
    columns = [torch.where(draws[:, 1] < JITTER_SHARE, order, -1)]
    for number, reach in enumerate((BRIGHTNESS, CONTRAST, SATURATION)):
        columns.append(1 + (2 * draws[:, 2 + number] - 1) * reach)
    columns.append((2 * draws[:, 5] - 1) * HUE)
    columns.append((draws[:, 6] < GREY_SHARE).double())
    sigma = kind.sigmas[0] + draws[:, 7] * (kind.sigmas[1] - kind.sigmas[0])
    columns.append(torch.where(draws[:, 8] < kind.blurred, sigma, 0))
    columns.append((draws[:, 9] < kind.solarised).double())
    return torch.stack(columns, dim=1).float()


def _crop_matrix(start: Tensor, extent: Tensor, edge: int, size: int) -> Tensor:
    """The matrices (B, size, edge) that cut [start, start + extent) out of a line of pixels and resize it."""
    scale = (extent / size)[:, None, None]
    pixels = torch.arange(edge, device=start.device) + 0.5
    places = torch.arange(size, device=start.device)[:, None] + 0.5
    begin = start[:, None, None]
    centre = begin + places * scale  # (B, size, 1)
    # A triangle as wide as two pixels of the coarser of both grids.
    weight = (1 - (pixels - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    inside = (pixels > begin) & (pixels < begin + extent[:, None, None])
    weight = weight * inside
    return weight / weight.sum(dim=2, keepdim=True)
