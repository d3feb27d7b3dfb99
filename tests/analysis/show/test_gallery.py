"""Pictures of a gallery: planes, colours, maps and outlines, pixel by pixel."""

import numpy as np

from raypatch.analysis.show.gallery import (
    GAP,
    LEAST_EDGE,
    Gallery,
    Picture,
    Strip,
    as_colours,
    as_planes,
    draw_outline,
    lay_map,
    side_by_side,
)


def test_a_volume_is_shown_by_the_planes_through_its_middle():
    volume = np.arange(4 * 4 * 4).reshape(4, 4, 4)
    first, second, third = as_planes(volume)
    assert (first == volume[2]).all()
    assert (second == volume[:, 2]).all()
    assert (third == volume[:, :, 2]).all()
    (plane,) = as_planes(volume[0])
    assert (plane == volume[0]).all()


def test_small_images_grow_by_whole_steps_and_grey_becomes_colours():
    image = np.array([[[0, 255], [10, 20]]], np.uint8)
    pixels = as_colours(image)
    assert pixels.shape == (LEAST_EDGE, LEAST_EDGE, 3)
    assert pixels[0, -1].tolist() == [255] * 3
    assert pixels[-1, 0].tolist() == [10] * 3
    colour = as_colours(np.stack([image[0], image[0] // 2, image[0] // 5]))
    assert colour[-1, -1].tolist() == [20, 10, 4]


def test_a_map_leaves_the_picture_where_it_is_nothing():
    pixels = as_colours(np.full((1, 2, 2), 100, np.uint8))
    laid = lay_map(pixels, np.array([[0, 1], [0, 0.5]], np.float32))
    assert (laid[:, : LEAST_EDGE // 2] == 100).all()
    strongest, half = laid[0, -1].astype(int), laid[-1, -1].astype(int)
    # inferno ends in a light yellow.
    assert strongest.min() > 100
    assert np.abs(strongest - 100).sum() > np.abs(half - 100).sum() > 0


def test_an_outline_follows_the_set_and_not_the_edge_of_the_picture():
    inside = np.zeros((LEAST_EDGE, LEAST_EDGE), bool)
    inside[:, :10] = True
    drawn = draw_outline(np.zeros((LEAST_EDGE, LEAST_EDGE, 3), np.uint8), inside, (255, 255, 255))
    lit = drawn[..., 0] == 255
    assert lit[:, 8:10].all()
    assert not lit[:, :8].any()
    assert not lit[:, 10:].any()


def test_pictures_become_files_in_order_and_addresses():
    plane = np.zeros((LEAST_EDGE, LEAST_EDGE, 3), np.uint8)
    three = side_by_side([plane, plane, plane])
    assert three.shape == (LEAST_EDGE, 3 * LEAST_EDGE + 2 * GAP, 3)
    picture = Picture("three", three)
    assert picture.wide
    assert not Picture("one", plane).wide
    assert picture.address().startswith("data:image/jpeg;base64,")
    gallery = Gallery("maps", "Maps", "", (Strip("a", (picture, picture)), Strip("b", (picture,))))
    assert list(gallery.files()) == ["maps_01_01.jpg", "maps_01_02.jpg", "maps_02_01.jpg"]
    assert gallery.files()["maps_01_01.jpg"].startswith(b"\xff\xd8")
