"""One picture in whatever depth and mode gives one array, or is refused by name; never silence and other pixels."""

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from raypatch.data.inputs.reading import read_listed
from raypatch.data.inputs.scan import ImageFiles
from raypatch.data.layout.npz import DataError

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :12]
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def read_all(paths, channels=1):
    return list(read_listed([ImageFiles(path.name, (path,)) for path in paths], 2, channels, None))


def read(path, channels=1):
    (image,) = read_all([path], channels)
    return image


def write(folder, name, array, **options):
    path = folder / name
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(path, **options)
    return path


DEPTHS = {
    "png 8": ("a.png", GREY),
    "png 16": ("a.png", GREY.astype(np.uint16) * 257),
    "tiff 16": ("a.tif", GREY.astype(np.uint16) * 257),
    "tiff 32": ("a.tif", GREY.astype(np.int32) * 257),
    "8 bits in 32": ("a.tiff", GREY.astype(np.int32)),
    "8 bits in 16": ("a.png", GREY.astype(np.uint16)),
    "floats to 1": ("a.tif", GREY.astype(np.float32) / 255),
    "floats to 255": ("a.tif", GREY.astype(np.float32)),
    "palette": ("a.png", Image.fromarray(GREY).convert("P")),
    "opaque alpha": ("a.png", Image.fromarray(GREY).convert("RGBA")),
    "grey and alpha": ("a.png", Image.fromarray(GREY).convert("LA")),
    "cmyk": ("a.tif", Image.fromarray(GREY).convert("RGB").convert("CMYK")),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_gives_the_same_grey(tmp_path, depth):
    name, stored = DEPTHS[depth]
    path = write(tmp_path, name, stored)
    assert np.abs(read(path).astype(int) - GREY).max() <= 1
    assert np.array_equal(read(path, channels=3), np.stack([read(path)] * 3, axis=-1))


def test_colour_is_read_as_the_model_was_trained(tmp_path):
    path = write(tmp_path, "a.png", COLOUR)
    assert np.array_equal(read(path, channels=3), COLOUR)
    assert np.array_equal(read(path), np.asarray(Image.fromarray(COLOUR).convert("L")))


def test_one_bit_is_black_and_white(tmp_path):
    assert set(np.unique(read(write(tmp_path, "a.png", GREY > 100)))) == {0, 255}


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_picture_is_turned_as_its_camera_says(tmp_path, name):
    turned = Image.fromarray(GREY).transpose(Image.Transpose.ROTATE_90)  # upright again after orientation 6
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read(write(tmp_path, name, turned, exif=exif))
    assert found.shape == GREY.shape
    assert np.abs(found.astype(int) - GREY).max() < 30  # JPEG is not exact


def test_a_deep_picture_is_turned_too(tmp_path):
    turned = np.rot90(GREY).astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(read(write(tmp_path, "a.png", turned, exif=exif)), GREY)


def test_white_is_judged_over_all_pictures_together(tmp_path):
    dark = write(tmp_path, "dark.png", GREY.astype(np.uint16) * 100)
    bright = write(tmp_path, "bright.png", GREY.astype(np.uint16) * 257)
    both = read_all([dark, bright])
    assert both[0].max() == round(100 / 257 * GREY.max())
    with pytest.raises(DataError, match=r"dark\.png holds values up to \d+ in more than 8 bits"):
        read(dark)


REFUSED = {
    "12 bits in 16": ("a.png", GREY.astype(np.uint16) * 16, r"holds values up to 4\d\d\d in more than 8 bits"),
    "32 bits": ("a.tif", GREY.astype(np.int32) * 2**20, "in more than 8 bits"),
    "negative": ("a.tif", GREY.astype(np.int32) - 9, "holds values down to -9"),
    "wide floats": ("a.tif", GREY.astype(np.float32) * 9, "neither 0 to 1 nor 0 to 255"),
    "NaN": ("a.tif", np.where(GREY > 9, np.nan, GREY).astype(np.float32), "holds NaN or infinity"),
    "see-through": ("a.png", np.dstack([COLOUR, GREY]), "has transparent pixels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_one_meaning_is_refused_by_name(tmp_path, case):
    name, stored, message = REFUSED[case]
    path = write(tmp_path, name, stored)
    with pytest.raises(DataError, match=message) as refused:
        read(path)
    assert str(path) in str(refused.value)


def test_several_pages_are_refused(tmp_path):
    page = Image.fromarray(GREY)
    path = write(tmp_path, "a.tif", page, save_all=True, append_images=[page, page])
    with pytest.raises(DataError, match="holds 3 pages"):
        read(path)


def test_a_tiff_whose_white_is_zero_is_turned_over(tmp_path):
    tags = ImageFileDirectory_v2()
    tags[262] = 0
    stored = 65535 - GREY.astype(np.uint16) * 257
    path = write(tmp_path, "a.tif", stored, tiffinfo=tags)
    with Image.open(path) as picture:
        inverted = picture.tag_v2[262] == 0
    expected = GREY if inverted else 255 - GREY
    assert np.array_equal(read(path), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a git-lfs pointer"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "what a Mac hides"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"", "is empty"),
        (b"nonsense", "is no picture that can be read"),
    ],
)
def test_what_stands_in_a_picture_s_place_is_named(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)
