import zipfile

import numpy as np
import pytest

from raypatch.data.layout.npz import DataError, inspect_npz, read_new_images, read_split, read_split_texts

COUNTS = {"train": 6, "val": 3, "test": 4}


def arrays(shape=(8, 8), classes=2, **changes):
    """A good file's arrays, with some changed; None takes one away."""
    random = np.random.default_rng(0)
    made = {}
    for split, count in COUNTS.items():
        made[f"{split}_images"] = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def save(tmp_path, content):
    path = tmp_path / "own.npz"
    np.savez_compressed(path, **content)
    return path


@pytest.mark.parametrize(("shape", "channels", "dimensions"), [((8, 8), 1, 2), ((8, 8, 3), 3, 2), ((8, 8, 8), 1, 3)])
def test_facts_follow_from_the_headers(tmp_path, shape, channels, dimensions):
    info = inspect_npz(save(tmp_path, arrays(shape)))
    assert (info.channels, info.dimensions, info.size) == (channels, dimensions, 8)
    assert info.counts == (6, 3, 4)
    assert info.shape == (8,) * dimensions
    assert info.name == "own"
    assert info.md5 is None


@pytest.mark.parametrize(("classes", "task"), [(2, "binary"), (3, "multiclass")])
def test_task_follows_from_the_labels(tmp_path, classes, task):
    info = inspect_npz(save(tmp_path, arrays(classes=classes)))
    assert info.task == task
    assert info.classes == tuple(map(str, range(classes)))


def multilabel(**changes):
    columns = {f"{split}_labels": np.eye(4, dtype=np.int64)[np.arange(count) % 4] for split, count in COUNTS.items()}
    return arrays(**{**columns, **changes})


def test_several_columns_are_multilabel(tmp_path):
    path = save(tmp_path, multilabel(train_labels=np.ones((6, 4), int)))
    assert inspect_npz(path).task == "multilabel"
    assert len(inspect_npz(path).classes) == 4
    assert read_split(path, "val")[1].shape == (3, 4)


def test_flat_labels_and_single_columns_are_the_same(tmp_path):
    flat = {f"{split}_labels": np.arange(count) % 2 for split, count in COUNTS.items()}
    _, column = read_split(save(tmp_path, arrays()), "train")
    _, plain = read_split(save(tmp_path, arrays(**flat)), "train")
    assert column.dtype == np.int64
    assert column.tolist() == plain.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_split_is_read_as_it_was_saved(tmp_path):
    content = arrays((8, 8, 8))
    content["val_images"] = np.asfortranarray(content["val_images"])
    images, labels = read_split(save(tmp_path, content), "val")
    assert np.array_equal(images, content["val_images"])
    assert images.flags.c_contiguous
    assert labels.tolist() == [0, 1, 0]


def test_an_own_file_is_not_mirrored_unless_it_says_so(tmp_path):
    assert not inspect_npz(save(tmp_path, arrays())).mirror_safe
    assert inspect_npz(save(tmp_path, arrays(mirror_safe=np.array(True)))).mirror_safe


def test_an_own_file_may_say_who_is_on_its_images(tmp_path):
    said = arrays(val_groups=np.array(["b", "a", "b"]))
    assert read_split_texts(save(tmp_path, said), ["val"], "patients").tolist() == ["b", "a", "b"]
    assert read_split_texts(save(tmp_path, said), ["train"], "patients") is None
    with pytest.raises(DataError, match="val_groups is float64 of shape"):
        inspect_npz(save(tmp_path, arrays(val_groups=np.zeros(3))))


def test_patients_and_ids_are_text_or_numbers(tmp_path):
    said = arrays(val_patients=np.array(["P2", "P1", "P2"]), val_groups=np.array([0, 1, 2]), val_ids=np.arange(3))
    path = save(tmp_path, said)
    # Patients win over the older name.
    assert read_split_texts(path, ["val"], "patients").tolist() == ["P2", "P1", "P2"]
    assert read_split_texts(path, ["val"], "ids").tolist() == ["0", "1", "2"]
    assert read_split_texts(path, ["train"], "ids") is None
    with pytest.raises(DataError, match="train_ids is <U1 of shape"):
        inspect_npz(save(tmp_path, arrays(train_ids=np.array(["a"]))))


def test_an_own_file_may_name_its_classes(tmp_path):
    info = inspect_npz(save(tmp_path, arrays(class_names=np.array(["healthy", "ill"]))))
    assert info.classes == ("healthy", "ill")


FLOATS = arrays()["train_images"].astype(np.float32)
BAD = {
    "missing split": ({"val_images": None, "val_labels": None}, r"val_images is missing; the file needs train_images"),
    "missing labels": ({"test_labels": None}, r"test_labels is missing"),
    "floats in 0..1": ({"train_images": FLOATS / 255}, r"float32 but must be uint8.*\(images \* 255\)\.round\(\)"),
    "other floats": ({"train_images": FLOATS - 50}, r"values lie in -50\.\.20.: convert with \(\(images - images.min"),
    "NaN": ({"train_images": np.where(FLOATS > 9, np.nan, FLOATS)}, r"train_images is float32 .*holds NaN or infinity"),
    "wide integers": ({"val_images": np.zeros((3, 8, 8), np.int32)}, r"val_images is int32 but must be uint8"),
    "float labels": ({"val_labels": np.zeros((3, 1))}, r"val_labels is float64 but must be integer; convert"),
    "negative label": ({"val_labels": np.array([0, -1, 1])}, r"val_labels holds -1, out of range"),
    "label beyond train": (
        {"test_labels": np.array([0, 1, 5, 1])},
        r"test_labels holds class 5, out of range: .* 0 to 1",
    ),
    "labels from one": ({"train_labels": np.array([1, 2] * 3)}, r"train_labels skips class 0; number the classes"),
    "huge label": ({"train_labels": np.array([0, 2**40] * 3)}, r"train_labels skips class 1"),
    "one class": ({"train_labels": np.zeros((6, 1), int)}, r"train_labels holds only class 0; at least two"),
    "no row per image": ({"train_labels": np.zeros((5, 1), int)}, r"train_labels has 5 rows for 6 images"),
    "label volume": ({"train_labels": np.zeros((6, 1, 1), int)}, r"train_labels has shape \(6, 1, 1\), must be"),
    "columns differ": ({"val_labels": np.zeros((3, 2), int)}, r"val_labels has shape \(3, 2\) where train_labels has"),
    "empty split": (
        {"val_images": np.zeros((0, 8, 8), np.uint8), "val_labels": np.zeros((0, 1), int)},
        r"val_images is empty",
    ),
    "not square": ({"train_images": np.zeros((6, 8, 9), np.uint8)}, r"images of 8 x 9; all edges must be equal"),
    "not cubic": ({"train_images": np.zeros((6, 7, 8, 8), np.uint8)}, r"images of 7 x 8 x 8"),
    "sizes differ": ({"val_images": np.zeros((3, 9, 9), np.uint8)}, r"val_images has images of \(9, 9\), train_images"),
    "colour volumes": ({"train_images": np.zeros((6, 8, 8, 8, 3), np.uint8)}, r"colour volumes are not supported"),
    "channel axis": ({"train_images": np.zeros((6, 8, 8, 1), np.uint8)}, r"drop the last axis"),
    "flat images": ({"train_images": np.zeros((6, 64), np.uint8)}, r"has shape \(6, 64\); images must be"),
    "objects": ({"train_images": np.array([[1], [2, 3]] * 3, dtype=object)}, r"array of objects.*never loads"),
    "object labels": ({"train_labels": np.array(["a"] * 6, dtype=object)}, r"train_labels is an array of objects"),
    "named labels": ({"train_labels": np.array(["a", "b"] * 3)}, r"train_labels is <U1 but must be integer"),
    "too few names": ({"class_names": np.array(["one"])}, r"class_names .* must be 2 strings"),
    "mirrors": ({"mirror_safe": np.array([1, 0])}, r"mirror_safe .* must be one bool"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_with_the_way_out(tmp_path, case):
    changes, message = BAD[case]
    path = save(tmp_path, arrays(**changes))
    with pytest.raises(DataError, match=message) as caught:
        inspect_npz(path)
    assert str(path) in str(caught.value)


def test_multilabel_takes_zero_and_one_only(tmp_path):
    path = save(tmp_path, multilabel(test_labels=np.full((4, 4), 2)))
    with pytest.raises(DataError, match=r"test_labels has several columns, so each must be 0 or 1"):
        inspect_npz(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_off_file_is_refused(tmp_path, share):
    path = save(tmp_path, arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"is no \.npz archive or is cut off|is empty"):
        inspect_npz(path)


def test_facts_need_no_look_at_the_images_so_damage_inside_is_found_when_read(tmp_path):
    path = save(tmp_path, arrays((64, 64)))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("train_images.npy").header_offset
    content[start + 5000 : start + 5100] = bytes(100)
    path.write_bytes(content)
    assert inspect_npz(path).counts == (6, 3, 4)
    with pytest.raises(DataError, match=r"train_images cannot be read \(.*; save or copy the file again"):
        read_split(path, "train")


def test_an_array_that_announces_more_than_it_holds_is_refused(tmp_path):
    path = save(tmp_path, arrays(train_images=None))
    with zipfile.ZipFile(path, "a") as archive, archive.open("train_images.npy", "w") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)}
        np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(DataError, match=r"train_images does not hold the \(1000000000, 28, 28\) values"):
        inspect_npz(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*absent\.npz: No such file"):
        inspect_npz(tmp_path / "absent.npz")


def test_one_hot_labels_are_refused_with_both_ways_out(tmp_path):
    path = save(tmp_path, multilabel())
    with pytest.raises(DataError, match=r"train_labels is one-hot.*argmax\(axis=1\).*task=numpy.array\('multilabel'\)"):
        inspect_npz(path)


def test_labels_that_only_look_one_hot_are_taken_when_the_file_says_so(tmp_path):
    assert inspect_npz(save(tmp_path, multilabel(task=np.array("multilabel")))).task == "multilabel"


def test_a_row_with_two_or_none_in_any_split_is_multilabel(tmp_path):
    labels = np.eye(4, dtype=np.int64)
    labels[0, 1] = 1
    assert inspect_npz(save(tmp_path, multilabel(test_labels=labels))).task == "multilabel"
    assert inspect_npz(save(tmp_path, multilabel(test_labels=np.zeros((4, 4), int)))).task == "multilabel"


def test_a_file_may_say_that_its_classes_have_an_order(tmp_path):
    assert inspect_npz(save(tmp_path, arrays(classes=3, task=np.array("ordinal")))).task == "ordinal"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (np.array("binary"), "task is binary, but the labels are class numbers of 3 classes: multiclass"),
        (np.array("guess"), "task is guess, must be one of binary, multiclass, ordinal, multilabel"),
        (np.array(3), "task is int64 of shape"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(tmp_path, said, message):
    with pytest.raises(DataError, match=message):
        inspect_npz(save(tmp_path, arrays(classes=3, task=said)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 16, 16), r"channels go last: images.transpose\(0, 2, 3, 1\) \("),
        ((4, 16, 16), r"channels go last: images.transpose\(0, 2, 3, 1\)\[..., :3\]"),
        ((1, 16, 16), r"drop axis 1 with images\[:, 0\]"),
        ((2, 16, 16), r"of 1 or 3 channels: keep one"),
        ((16, 16, 4), r"drop the alpha channel with images\[..., :3\]"),
        ((16, 16, 2), r"of 1 or 3 channels: keep one"),
        ((16, 16, 1), r"drop the last axis"),
        ((3, 20, 16), r"channels go last"),
        ((1, 8, 8, 8), r"drop axis 1 with images\[:, 0\]"),
        ((8, 8, 8, 1), r"drop the last axis"),
        ((3, 8, 8, 8), r"colour volumes are not supported"),
    ],
)
def test_channels_in_the_wrong_place_are_told_as_such(tmp_path, shape, message):
    with pytest.raises(DataError, match=message) as refused:
        inspect_npz(save(tmp_path, arrays(shape)))
    assert "pad or resize" not in str(refused.value)


@pytest.mark.parametrize("name", ["ill\nness", "bell\x07", "half\ud800", "", "  ", "line\u2028end"])
def test_a_class_without_a_printable_name_is_refused(tmp_path, name):
    path = save(tmp_path, arrays())
    with zipfile.ZipFile(path, "a") as archive, archive.open("class_names.npy", "w") as stream:
        np.lib.format.write_array(stream, np.array(["healthy", name]), allow_pickle=False)
    with pytest.raises(DataError, match=r"class_names holds .* give each class a name of one line"):
        inspect_npz(path)


@pytest.mark.parametrize("names", [["lesion", "lesion"], ["a  b", "a b"], ["benign", "benign "]])
def test_two_classes_of_one_name_are_refused(tmp_path, names):
    with pytest.raises(DataError, match=r"class_names has .* 2 times; give each class its own name"):
        inspect_npz(save(tmp_path, arrays(class_names=np.array(names))))


def test_new_images_need_no_labels(tmp_path):
    content = arrays()
    for held in ({"test_images": content["test_images"]}, {"images": content["test_images"]}):
        name, images = read_new_images(save(tmp_path, held), "test")
        assert np.array_equal(images, content["test_images"])
        assert name == ("test" if "test_images" in held else "images")
    np.savez(tmp_path / "bare.npz", content["test_images"])
    assert read_new_images(tmp_path / "bare.npz", "test")[0] == "images"


def test_images_of_another_split_are_pointed_out(tmp_path):
    path = save(tmp_path, {"val_images": arrays()["val_images"]})
    with pytest.raises(DataError, match=r"no test_images and no images; it has those of val: choose with --split"):
        read_new_images(path, "test")


def test_chunks_are_the_array(tmp_path):
    from raypatch.data.layout.archive import Archive

    content = arrays()
    content["val_images"] = np.asfortranarray(content["val_images"])
    with Archive(save(tmp_path, content)) as archive:
        for key in ("train_images", "val_images"):
            assert np.array_equal(np.concatenate(list(archive.chunks(key, 4))), content[key])


def test_a_pointer_of_git_lfs_is_no_archive(tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DataError, match="is a git-lfs pointer of 63 bytes"):
        inspect_npz(path)
