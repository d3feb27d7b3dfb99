import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from raypatch.data.batches.augment import augment, channels_first, draw_parameters, normalize, to_float

BILINEAR = v2.InterpolationMode.BILINEAR
TOLERANCE = {"rtol": 0, "atol": 1e-5}
IDENTITY = (0, 0, 28, 28, 1, 0, 1, 0, 1, 0)
CROP, FLIP, ROTATION, COLOUR = slice(0, 4), slice(4, 5), slice(5, 6), slice(6, 10)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(count=64, shape=(28, 28), *, mirror_safe=True, seed=0):
    return draw_parameters(count, shape, seeded(seed), mirror_safe=mirror_safe)


def noise(channels, count=64, edge=28):
    return torch.rand(count, channels, edge, edge, generator=seeded(1))


def only(parameters, *columns):
    """The drawn parameters of some operations; the others do nothing."""
    kept = torch.tensor([IDENTITY], dtype=torch.float32).repeat(len(parameters), 1)
    for column in columns:
        kept[:, column] = parameters[:, column]
    return kept


def crop_one(image, row):
    return TF.resized_crop(image, *(int(value) for value in row[:4]), size=[28, 28], antialias=False)


def flip_one(image, row):
    return TF.horizontal_flip(image) if row[4] < 0 else image


def rotate_one(image, row):
    return TF.rotate(image, float(row[5]), interpolation=BILINEAR)


def colour_one(image, row):
    for factor, share in (row[6:8], row[8:10]):
        adjust = TF.adjust_contrast if share != 0 else TF.adjust_brightness
        image = adjust(image, float(factor))
    return image


def each(images, parameters, *operations):
    results = []
    for image, row in zip(images, parameters, strict=True):
        for operation in operations:
            image = operation(image, row)
        results.append(image)
    return torch.stack(results)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("columns", "operations"),
    [
        ((), ()),
        ((CROP,), (crop_one,)),
        ((FLIP,), (flip_one,)),
        ((ROTATION,), (rotate_one,)),
        ((COLOUR,), (colour_one,)),
        ((CROP, FLIP), (crop_one, flip_one)),
        ((FLIP, ROTATION), (flip_one, rotate_one)),
        ((FLIP, ROTATION, COLOUR), (flip_one, rotate_one, colour_one)),
        ((CROP, FLIP, COLOUR), (crop_one, flip_one, colour_one)),
    ],
    ids=lambda value: "+".join(op.__name__ for op in value) if value and callable(value[0]) else "",
)
def test_operations_equal_torchvision_s(channels, columns, operations):
    images, parameters = noise(channels), only(draw(), *columns)
    torch.testing.assert_close(augment(images, parameters), each(images, parameters, *operations), **TOLERANCE)


def test_one_interpolation_differs_little_from_torchvision_s_chain_of_two():
    """On a smooth image; the chain blurs once more, so on white noise the two differ by design."""
    images = F.interpolate(torch.rand(64, 1, 7, 7, generator=seeded(2)), size=(28, 28), mode="bicubic").clamp(0, 1)
    parameters = draw()
    chain = each(images, parameters, crop_one, flip_one, rotate_one, colour_one)
    difference = (augment(images, parameters) - chain).abs()
    assert difference.mean() < 0.005
    assert difference.max() < 0.1


def test_both_colour_orders_occur_and_contrast_uses_the_mean_at_its_turn():
    shares = draw(1000)[:, [7, 9]]
    assert (shares[:, 0] == 0).sum() + (shares[:, 1] == 0).sum() == 1000
    assert 400 < (shares[:, 0] == 0).sum() < 600


def test_crops_are_distributed_as_random_resized_crop_s():
    ours = draw(4000)[:, CROP]
    torch.manual_seed(0)
    recipe = v2.RandomResizedCrop(28, scale=(0.8, 1.0), ratio=(3 / 4, 4 / 3))
    image = torch.zeros(1, 28, 28)
    drawn = [recipe.make_params([image]) for _ in range(4000)]
    theirs = torch.tensor([[d["top"], d["left"], d["height"], d["width"]] for d in drawn], dtype=torch.float32)
    standard_error = (ours.var(0) + theirs.var(0)).div(4000).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * standard_error).all()
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.1, atol=0)
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= 28).all()


def test_parameters_stay_within_the_recipe():
    parameters = draw(2000)
    assert parameters[:, 5].abs().max() <= 15
    factors = parameters[:, [6, 8]]
    assert factors.min() >= 0.8
    assert factors.max() <= 1.2
    assert 900 < (parameters[:, 4] < 0).sum() < 1100


def test_without_mirrors_all_but_the_flip_stays():
    safe, unsafe = draw(mirror_safe=True), draw(mirror_safe=False)
    assert (unsafe[:, 4] == 1).all()
    others = [column for column in range(10) if column != 4]
    assert torch.equal(safe[:, others], unsafe[:, others])


@pytest.mark.parametrize("shape", [(28, 28), (8, 8, 8)])
def test_a_seed_fixes_the_epoch(shape):
    assert torch.equal(draw(100, shape, seed=5), draw(100, shape, seed=5))
    assert not torch.equal(draw(100, shape, seed=5), draw(100, shape, seed=6))


@pytest.mark.parametrize("shape", [(28, 28), (8, 8, 8)])
def test_dividing_a_batch_changes_nothing(shape):
    images, parameters = torch.rand(8, 1, *shape, generator=seeded(3)), draw(8, shape)
    parts = [augment(*part) for part in zip(images.split(3), parameters.split(3), strict=True)]
    torch.testing.assert_close(torch.cat(parts), augment(images, parameters), rtol=0, atol=1e-6)


def test_bytes_and_their_floats_are_augmented_alike():
    images = (noise(3) * 255).byte()
    assert torch.equal(augment(images, draw()), augment(to_float(images), draw()))


def test_autocast_does_not_round_positions():
    images, parameters = noise(1), draw()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = augment(images, parameters)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, augment(images, parameters), **TOLERANCE)


@pytest.mark.parametrize("shape", [(28, 28), (8, 8, 8)])
def test_nothing_depends_on_values(shape):
    """The meta device has no values: whatever looked at one, as a device would have to be waited for, fails on it."""
    images = torch.zeros(4, 1, *shape, dtype=torch.uint8, device="meta")
    result = normalize(
        augment(images, draw(4, shape).to("meta")), torch.zeros(3, device="meta"), torch.ones(3, device="meta")
    )
    assert result.shape == (4, 3, *shape)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 28)])
def test_captured_on_a_gpu_equals_the_cpu(shape):
    images = (torch.rand(8, 1, *shape, generator=seeded(4)) * 255).byte()
    first, second = draw(8, shape, seed=1), draw(8, shape, seed=2)
    static_images, static_parameters = images.cuda(), first.cuda()
    warm_up = torch.cuda.Stream()
    with torch.cuda.stream(warm_up):
        augment(static_images, static_parameters)
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = augment(static_images, static_parameters)
    static_parameters.copy_(second)
    graph.replay()
    torch.testing.assert_close(result.cpu(), augment(images, second), rtol=0, atol=1e-4)


def orbit(volume, generators):
    """All volumes that the generators make of one."""
    found, new = {}, [volume]
    while new:
        current = new.pop()
        if current.tobytes() not in found:
            found[current.tobytes()] = current
            new.extend(np.ascontiguousarray(generate(current)) for generate in generators)
    return set(found)


@pytest.mark.parametrize(("mirror_safe", "count"), [(True, 48), (False, 24)])
def test_volumes_get_every_symmetry_of_the_cube_and_mirrors_only_where_safe(mirror_safe, count):
    volume = np.random.default_rng(0).integers(0, 256, (3, 3, 3)).astype(np.uint8)
    turns = [lambda v, axes=axes: np.rot90(v, axes=axes) for axes in itertools.combinations(range(3), 2)]
    mirrors = [lambda v: v[::-1]] if mirror_safe else []
    images = torch.from_numpy(volume)[None, None].repeat(2000, 1, 1, 1, 1)
    made = augment(images, draw(2000, (3, 3, 3), mirror_safe=mirror_safe)).mul(255).round().byte().numpy()
    expected = orbit(volume, turns + mirrors)
    assert len(expected) == count
    seen = [image.tobytes() for image in made]
    assert set(seen) == expected
    assert min(seen.count(one) for one in expected) > 2000 / count / 3


def test_channels_come_first():
    grey, rgb, volume = (np.zeros(shape, np.uint8) for shape in ((2, 5, 5), (2, 5, 5, 3), (2, 3, 3, 3)))
    assert channels_first(grey, dimensions=2).shape == (2, 1, 5, 5)
    assert channels_first(rgb, dimensions=2).shape == (2, 3, 5, 5)
    assert channels_first(volume, dimensions=3).shape == (2, 1, 3, 3, 3)


def test_grey_is_normalised_to_three_equal_channels_of_given_statistics():
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    images = noise(1)
    result = normalize(images, mean, std)
    for channel in range(3):
        torch.testing.assert_close(result[:, channel], (images[:, 0] - mean[channel]) / std[channel])
