"""Images that repeat one of an earlier split are found, also changed a little; images that only look alike are not."""

import io

import numpy as np
import pytest
from PIL import Image

from raypatch.data.check.twins import describe_twins, find_twins

EDGES = {2: 28, 3: 24}


def make_scenes(count: int, dimensions: int, edge: int, seed: int) -> np.ndarray:
    """Smooth random scenes with detail, (count, *edges) uint8, larger by 4 at each side than `edge`."""
    random = np.random.default_rng(seed)
    shape = (edge + 8,) * dimensions
    scenes = np.zeros((count, *shape))
    for grain in (2, 4, 8):
        coarse = random.normal(size=(count, *(-(-size // grain) for size in shape)))
        for axis in range(1, dimensions + 1):
            coarse = np.repeat(coarse, grain, axis=axis)
        scenes += grain * coarse[(slice(None), *(slice(0, size) for size in shape))]
    scenes = 128 + 40 * scenes / scenes.std()
    return scenes.clip(0, 220).astype(np.uint8)


def crop(scenes: np.ndarray, edge: int, shift: int = 0) -> np.ndarray:
    """The middle of the scenes, moved along the last axis."""
    middle = [slice(4, 4 + edge)] * (scenes.ndim - 2)
    return scenes[(slice(None), *middle, slice(4 + shift, 4 + shift + edge))]


def save(path, train, val, test):
    arrays = {"train_images": train, "val_images": val, "test_images": test}
    labels = {f"{split}_labels": np.arange(len(arrays[f"{split}_images"])) % 2 for split in ("train", "val", "test")}
    np.savez(path, **arrays, **labels)
    return path


def as_jpeg(images: np.ndarray) -> np.ndarray:
    found = []
    for image in images:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "jpeg", quality=92)
        found.append(np.asarray(Image.open(content)))
    return np.stack(found)


CHANGES = {
    "shifted": lambda scenes, edge: crop(scenes, edge, 1),
    "brighter": lambda scenes, edge: (crop(scenes, edge) * 1.1 + 10).clip(0, 255).astype(np.uint8),
    "both": lambda scenes, edge: (crop(scenes, edge, -1) * 0.9 + 3).astype(np.uint8),
    "noisy": lambda scenes, edge: (crop(scenes, edge) + np.random.default_rng(9).integers(-2, 3)).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_changed_copy_is_found(tmp_path, dimensions, change):
    edge = EDGES[dimensions]
    scenes = make_scenes(20, dimensions, edge, seed=0)
    others = make_scenes(30, dimensions, edge, seed=1)
    test = crop(others, edge)[:10].copy()
    test[3:6] = CHANGES[change](scenes[:3], edge)
    path = save(tmp_path / "own.npz", crop(scenes, edge), crop(others, edge)[20:], test)
    found = [(twin.split, twin.index, twin.of_split, twin.of_index) for twin in find_twins(path)]
    assert found == [("test", 3, "train", 0), ("test", 4, "train", 1), ("test", 5, "train", 2)]


def test_half_a_pixel_of_a_larger_image_is_found(tmp_path):
    scenes = make_scenes(12, 2, 112, seed=0)
    others = crop(make_scenes(8, 2, 112, seed=1), 112)
    test = np.concatenate([crop(scenes[:3], 112, 1), others[4:]])
    path = save(tmp_path / "own.npz", crop(scenes, 112), others[:4], test)
    assert [(twin.index, twin.of_index) for twin in find_twins(path)] == [(0, 0), (1, 1), (2, 2)]


def test_a_jpeg_of_a_picture_is_found(tmp_path):
    scenes, others = (crop(make_scenes(10, 2, 56, seed=seed), 56) for seed in (0, 1))
    path = save(tmp_path / "own.npz", scenes, others[:5], np.concatenate([others[5:], as_jpeg(scenes[:2])]))
    assert [(twin.index, twin.of_index) for twin in find_twins(path)] == [(5, 0), (6, 1)]


def test_images_of_one_organ_are_no_twins(tmp_path):
    rows, columns = np.mgrid[:28, :28] - 13.5
    disc = 150.0 * (np.hypot(rows, columns) < 12)
    random = np.random.default_rng(0)
    images = (disc + random.normal(0, 6, (60, 28, 28))).clip(0, 255).astype(np.uint8)  # correlation above .98
    assert find_twins(save(tmp_path / "own.npz", images[:30], images[30:45], images[45:])) == []


def test_empty_and_tiny_images_are_twins_only_where_equal(tmp_path):
    flat = np.arange(12, dtype=np.uint8).reshape(-1, 1, 1) * np.ones((1, 16, 16), np.uint8)
    assert find_twins(save(tmp_path / "flat.npz", flat[:6], flat[6:9], flat[9:])) == []
    tiny = np.random.default_rng(0).integers(0, 256, (12, 6, 6), dtype=np.uint8)
    found = find_twins(save(tmp_path / "tiny.npz", tiny[:6], tiny[6:9], np.concatenate([tiny[9:], tiny[1:2]])))
    assert [(twin.index, twin.of_index, twin.equal) for twin in found] == [(3, 1, True)]


def test_colour_and_columns_order_are_read(tmp_path):
    grey = crop(make_scenes(10, 2, 28, seed=0), 28)
    colour = np.stack([grey, grey // 2, 255 - grey // 3], axis=-1)
    test = np.asfortranarray(colour[:2] + np.uint8(1))
    found = find_twins(save(tmp_path / "own.npz", colour[:6], colour[6:], test))
    assert [(twin.index, twin.of_index) for twin in found] == [(0, 0), (1, 1)]


def test_what_is_found_is_said_with_how_many_and_which(tmp_path):
    images = crop(make_scenes(40, 2, 28, seed=0), 28)
    path = save(tmp_path / "own.npz", images[:30], images[30:35], images[:30])
    text = describe_twins(find_twins(path), {"train": 30, "val": 5, "test": 30})
    assert text[0].startswith("30 of 30 test images are near-duplicates of images in train or val (30 of them equal")
    assert "  test 0  train 0  equal" in text
    assert text[-1] == "  and 10 more; --all lists them"
    assert len(describe_twins(find_twins(path), {"train": 30, "val": 5, "test": 30}, show=None)) == 32
    assert describe_twins([], {}) == ["no image of val or test repeats one of an earlier split, as far as can be told"]


@pytest.mark.real_data
def test_breastmnist_holds_the_known_near_duplicates(medmnist_root):
    """Those ten have a correlation above .99 at 128 px, one is equal; there are more below."""
    known = {7, 21, 37, 47, 65, 76, 81, 84, 98, 115}
    found = [twin for twin in find_twins(medmnist_root / "breastmnist.npz") if twin.split == "test"]
    assert known <= {twin.index for twin in found}
    assert {twin.index for twin in found if twin.equal} == {76}


@pytest.mark.real_data
def test_images_of_eyes_are_no_near_duplicates(medmnist_root):
    assert find_twins(medmnist_root / "retinamnist.npz") == []
