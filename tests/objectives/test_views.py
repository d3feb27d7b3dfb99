"""Views: crops and colours equal torchvision's for the same numbers, in volumes slice by slice."""

import math

import pytest
import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from raypatch.config import TrialConfig
from raypatch.objectives import colours
from raypatch.objectives.views import ORDERS, ViewKind, change_colours, crop, draw_view, make_view, view_kinds
from raypatch.trial_fields.objective import local_size


def _images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def _kind(size: int = 12, **fields: object) -> ViewKind:
    values = {"scale": (0.4, 1.0), "blurred": 0.5, "solarised": 0.5, "sigmas": (0.5, 2.0)} | fields
    return ViewKind(size=size, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [7, 16, 40])
def test_a_crop_is_torchvisions(size: int) -> None:
    images = _images(3, 3, 32, 32)
    box = torch.tensor([[[2, 20], [5, 17]], [[0, 32], [0, 32]], [[10, 9], [21, 11]]]).float()
    found = crop(images, box, size)
    for image, ((top, height), (left, width)), made in zip(images, box.int().tolist(), found, strict=True):
        expected = F.resized_crop(image, top, left, height, width, [size, size], antialias=True)
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_a_crop_of_a_volume_is_that_of_its_slices() -> None:
    plane = _images(1, 1, 20, 20)
    volume = plane[:, :, None].expand(-1, -1, 20, -1, -1)
    box = torch.tensor([[[3.0, 10.0], [2.0, 15.0], [4.0, 9.0]]])
    found = crop(volume, box, 8)
    expected = crop(plane, box[:, 1:], 8)
    torch.testing.assert_close(found, expected[:, :, None].expand(-1, -1, 8, -1, -1))


CHANGES = [
    (colours.adjust_brightness, F.adjust_brightness, 1.3),
    (colours.adjust_contrast, F.adjust_contrast, 0.7),
    (colours.adjust_saturation, F.adjust_saturation, 1.2),
    (colours.adjust_hue, F.adjust_hue, 0.09),
    (colours.adjust_hue, F.adjust_hue, -0.1),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ours", "theirs", "strength"), CHANGES)
def test_a_change_of_colour_is_torchvisions(ours, theirs, strength: float, channels: int) -> None:  # type: ignore[no-untyped-def]
    images = _images(4, channels, 9, 9)
    images[0] = 0.5
    found = ours(images, torch.full((4,), strength))
    torch.testing.assert_close(found, theirs(images, strength), atol=1e-5, rtol=0)


def test_grey_blur_and_solarisation_are_torchvisions() -> None:
    images = _images(2, 3, 15, 15)
    grey = F.rgb_to_grayscale(images, 3)
    torch.testing.assert_close(colours.to_grey(images).expand(-1, 3, -1, -1), grey, atol=1e-5, rtol=0)
    torch.testing.assert_close(colours.solarise(images), F.solarize(images, 0.5))
    blurred = colours.blur(images, torch.tensor([0.4, 1.7]), reach=6)
    for image, sigma, found in zip(images, (0.4, 1.7), blurred, strict=True):
        torch.testing.assert_close(found, F.gaussian_blur(image, [13, 13], [sigma, sigma]), atol=1e-5, rtol=0)


def test_each_image_gets_its_own_changes_in_its_own_order() -> None:
    images = _images(3, 3, 12, 12)
    drawn = torch.tensor(
        [
            [ORDERS.index((3, 0, 2, 1)), 1.2, 0.8, 1.1, 0.05, 0, 0, 0],
            [-1, 1.2, 0.8, 1.1, 0.05, 1, 0, 1],
            [-1, 1.2, 0.8, 1.1, 0.05, 0, 0.9, 0],
        ]
    )
    found = change_colours(images, drawn, _kind())
    first = F.adjust_contrast(F.adjust_saturation(F.adjust_brightness(F.adjust_hue(images[0], 0.05), 1.2), 1.1), 0.8)
    second = F.solarize(F.rgb_to_grayscale(images[1], 3), 0.5)
    third = F.gaussian_blur(images[2], [13, 13], [0.9, 0.9])
    torch.testing.assert_close(found, torch.stack([first, second, third]), atol=1e-4, rtol=0)


SIZES = {
    (28, 28): None,
    (28, 14): 14,
    (28, 7): 14,
    (28, 4): 12,
    (28, 1): 12,
    (32, None): None,
    (64, None): 32,
    (64, 8): 24,
    (64, 16): 32,
    (112, 16): 48,
    (112, 8): 48,
    (224, 16): 96,
    (224, 8): 96,
    (224, None): 96,
}


@pytest.mark.parametrize(("size", "patch"), SIZES)
def test_local_views_are_three_sevenths_in_whole_patches(size: int, patch: int | None) -> None:
    assert local_size(size, patch) == SIZES[size, patch]


def test_a_trial_has_two_global_views_and_its_local_ones() -> None:
    config = TrialConfig(
        dataset="breastmnist", method="pretrain", schedule="cosine", patch_size=4, image_size=28, local_views=3
    )
    kinds = view_kinds(config)
    assert [kind.size for kind in kinds] == [28, 28, 12, 12, 12]
    assert [(kind.blurred, kind.solarised) for kind in kinds] == [(1, 0), (0.1, 0.2), *[(0.5, 0)] * 3]
    assert kinds[0].sigmas == pytest.approx((0.0125, 0.25))
    whole = config.model_copy(update={"patch_size": 28})
    assert len(view_kinds(whole)) == 2


@pytest.mark.parametrize("dimensions", [2, 3])
def test_what_is_drawn_keeps_to_its_limits(dimensions: int) -> None:
    kind = _kind(scale=(0.05, 0.4))
    drawn = draw_view(kind, 500, 32, torch.Generator().manual_seed(0), dimensions=dimensions, mirror_safe=True)
    start, extent = drawn.box.unbind(2)
    assert (start >= 0).all()
    assert (start + extent <= 32).all()
    area = (extent / 32).prod(dim=1) ** (2 / dimensions)
    assert 0.04 < area.min() < 0.08
    assert 0.35 < area.max() < 0.42
    ratio = extent.amax(dim=1) / extent.amin(dim=1)
    assert 1.2 < ratio.quantile(0.9) < 1.4
    assert (drawn.colour[:, 0] >= 0).float().mean() == pytest.approx(0.8, abs=0.05)
    assert (drawn.colour[:, 5] > 0).float().mean() == pytest.approx(0.2, abs=0.05)
    assert (drawn.colour[:, 6] > 0).float().mean() == pytest.approx(0.5, abs=0.07)
    assert drawn.colour[:, 4].abs().max() <= 0.1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_view_hangs_on_the_seed_and_not_on_the_batch(dimensions: int) -> None:
    images = _images(6, 1, *(16,) * dimensions)
    kind = _kind()
    draws = [
        draw_view(kind, 6, 16, torch.Generator().manual_seed(5), dimensions=dimensions, mirror_safe=True)
        for _ in range(2)
    ]
    whole = make_view(images, draws[0], kind)
    parts = [make_view(images[rows], draws[1].take(rows), kind) for rows in (slice(0, 1), slice(1, 6))]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert whole.shape == (6, 1, *(12,) * dimensions)
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_nothing_is_mirrored_where_the_side_matters() -> None:
    kind = _kind()
    drawn = draw_view(kind, 50, 16, torch.Generator().manual_seed(0), dimensions=2, mirror_safe=False)
    assert not drawn.turn.any()
    assert math.isclose(
        draw_view(kind, 400, 16, torch.Generator().manual_seed(0), dimensions=2, mirror_safe=True)
        .turn.float()
        .mean()
        .item(),
        0.5,
        abs_tol=0.1,
    )
