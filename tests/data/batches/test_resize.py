"""Images brought to size: as torchvision, Pillow and a plain rule have it, whole or in parts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from raypatch.data.batches.resize import held_size, pad_centred, resize_images


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(channels, *, count=4, edge=28):
    return torch.rand(count, channels, edge, edge, generator=seeded(3))


@pytest.mark.parametrize(("edge", "size"), [(28, 64), (64, 28), (28, 28)])
def test_images_are_resized_as_torchvision_does(edge, size):
    images = (noise(3, count=5, edge=edge) * 255).byte()
    expected = torch.stack([TF.resize(image.float(), [size, size], antialias=True) for image in images])
    assert (resize_images(images, size, "bilinear").float() - expected).abs().max() <= 0.5 + 1e-4
    torch.testing.assert_close(resize_images(images.float(), size, "bilinear"), expected)


def test_volumes_are_enlarged_trilinearly_and_shrunk_without_aliasing():
    volumes = torch.rand(2, 1, 8, 8, 8, generator=seeded(5))
    expected = F.interpolate(volumes, size=(12, 12, 12), mode="trilinear")
    torch.testing.assert_close(resize_images(volumes, 12, "bilinear"), expected)
    stripes = torch.zeros(1, 1, 16, 16, 16)
    stripes[:, :, ::2] = 1  # at the finest frequency: nothing but the mean may be left
    assert (resize_images(stripes, 8, "bilinear")[:, :, 1:-1] - 0.5).abs().max() < 0.02


def test_nearest_and_pad():
    images = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2) + 1
    assert torch.equal(resize_images(images, 4, "nearest"), images.repeat_interleave(2, 2).repeat_interleave(2, 3))
    padded = resize_images(images, 5, "pad")
    assert padded.dtype == torch.uint8
    assert torch.equal(padded[:, :, 1:3, 1:3], images)
    assert padded.sum() == images.sum()
    assert resize_images(torch.ones(1, 1, 2, 2, 2), 4, "pad").sum() == 8


def test_too_large_images_cannot_be_padded():
    with pytest.raises(ValueError, match="resize=pad cannot bring 8 pixels to image_size=4; use bilinear"):
        resize_images(torch.zeros(1, 1, 8, 8), 4, "pad")


def test_large_splits_are_resized_in_parts_with_one_result(monkeypatch):
    images = (noise(1, count=10) * 255).byte()
    whole = resize_images(images, 14, "bilinear")
    monkeypatch.setattr("raypatch.data.batches.resize._RESIZE_CHUNK", 3 * 28 * 28)
    assert torch.equal(resize_images(images, 14, "bilinear"), whole)


@pytest.mark.parametrize(("mode", "resample"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
@pytest.mark.parametrize(("edge", "size"), [(28, 224), (64, 28), (128, 96)])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_resized_as_pillow_does(mode, resample, edge, size, channels):
    # Away from black and white: Pillow clamps after each axis too.
    images = (60 + noise(channels, count=2, edge=edge) * 130).byte()
    resized = resize_images(images, size, mode)
    for image, ours in zip(images, resized, strict=True):
        pixels = image.movedim(0, -1).squeeze(-1).numpy()
        theirs = np.asarray(Image.fromarray(pixels).resize((size, size), resample), dtype=np.int64)
        difference = np.abs(theirs - ours.movedim(0, -1).squeeze(-1).numpy())
        # Pillow rounds after each axis, this once.
        assert difference.max() <= 1


def test_bicubic_does_not_wrap_where_it_overshoots():
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    images[..., 4:] = 255
    resized = resize_images(images, 32, "bicubic")
    assert (resized[..., :14] < 40).all()
    assert (resized[..., 18:] > 215).all()


def test_bicubic_volumes_keep_what_is_constant_along_an_axis():
    plane = noise(1, count=1, edge=8)
    volume = plane[:, :, None].expand(1, 1, 8, 8, 8).contiguous()
    resized = resize_images(volume, 12, "bicubic")
    torch.testing.assert_close(resized[:, :, 5], resize_images(plane, 12, "bicubic"))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_an_image_is_resized_alike_in_every_batch(mode):
    images = (noise(3, count=7) * 255).byte()
    whole = resize_images(images, 56, mode)
    alone = torch.cat([resize_images(part, 56, mode) for part in images.split(2)])
    assert torch.equal(whole, alone)


def test_padding_leaves_the_larger_half_of_an_odd_rest_behind_the_image():
    padded = pad_centred(torch.ones(1, 1, 28, 28), 225)
    rows = padded[0, 0].any(dim=1).nonzero().ravel()
    assert (rows[0].item(), rows[-1].item()) == (98, 125)


def test_pad_mean_waits_for_the_normalisation_and_refuses_alike():
    images = (noise(1) * 255).byte()
    assert resize_images(images, 64, "pad_mean") is images
    with pytest.raises(ValueError, match="resize=pad_mean cannot bring 28 pixels to image_size=14"):
        resize_images(images, 14, "pad_mean")


def test_a_split_is_held_at_the_smaller_size():
    assert held_size(28, 224, "bilinear") == 28
    assert held_size(224, 64, "bicubic") == 64
    assert held_size(28, 224, "pad") == held_size(28, 224, "pad_mean") == 28
