import hashlib

import numpy as np
import pytest

from raypatch.data import phantom
from raypatch.data.catalog import SPLITS, dataset_info

NAMES = {"phantom2d": (28, 28), "phantom2d_rgb": (28, 28, 3), "phantom3d": (28, 28, 28)}


@pytest.mark.parametrize("name", NAMES)
def test_split_has_the_catalog_s_layout(name):
    info = dataset_info(name)
    images, labels = phantom.make_split(info, "val")
    assert images.dtype == np.uint8
    assert images.shape == (info.counts[1], *NAMES[name])
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [info.counts[1] // len(info.classes)] * len(info.classes)


def test_splits_share_no_image():
    seen = [image.tobytes() for split in SPLITS for image in phantom.make_split(dataset_info("phantom2d"), split)[0]]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("name", "digest"),
    [("phantom2d", "00729cfc79ac8f48"), ("phantom2d_rgb", "8a7ef8cdc6627ab7"), ("phantom3d", "744b08531159500c")],
)
def test_the_same_name_gives_the_same_bytes_everywhere(name, digest):
    images, _ = phantom.make_split(dataset_info(name), "val")
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == digest


def _patch_deviations(images, patch):
    """Sorted standard deviations within the patches of each image: what grain looks like at one patch size."""
    count, grid = len(images), 28 // patch
    patches = images.reshape(count, grid, patch, grid, patch).astype(float)
    return np.sort(patches.std(axis=(2, 4)).reshape(count, -1), axis=1)


def test_size_is_seen_in_pixels_and_grain_in_small_patches_only():
    from sklearn.linear_model import LogisticRegression

    info = dataset_info("phantom2d")
    (train, train_labels), (test, test_labels) = (phantom.make_split(info, split) for split in ("train", "test"))

    def score(train_features, test_features, classes):
        model = LogisticRegression(max_iter=2000).fit(train_features, classes(train_labels))
        return model.score(test_features, classes(test_labels))

    pixels = [images.reshape(len(images), -1) / 255 for images in (train, test)]
    assert score(*pixels, lambda labels: labels // 2) > 0.95
    assert score(*pixels, lambda labels: labels % 2) < 0.7
    grain = {
        patch: score(*[_patch_deviations(images, patch) for images in (train, test)], lambda labels: labels % 2)
        for patch in (28, 14, 4)
    }
    assert grain[28] < 0.7 < grain[14] < 0.95 < grain[4]
