import re

import pytest

from raypatch.data.catalog import canonical_name, catalog, dataset_info


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("derma", "dermamnist"),
        ("DermaMNIST", "dermamnist"),
        ("dermamnist", "dermamnist"),
        ("derma_64", "dermamnist_64"),
        ("DermaMNIST-224", "dermamnist_224"),
        ("adrenal", "adrenalmnist3d"),
        ("AdrenalMNIST3D", "adrenalmnist3d"),
        ("adrenal_64", "adrenalmnist3d_64"),
        ("organa", "organamnist"),
        ("organ3d", "organmnist3d"),
        ("phantom2d", "phantom2d"),
        ("phantom2d-rgb", "phantom2d_rgb"),
    ],
)
def test_names_are_forgiving(name, canonical):
    assert canonical_name(name) == canonical


def test_every_canonical_name_stands_for_itself():
    assert [canonical_name(name) for name in catalog()] == list(catalog())


def test_wrong_name_gets_the_near_ones():
    with pytest.raises(ValueError, match=r"'dermo': did you mean dermamnist"):
        canonical_name("dermo")


def test_organ_is_not_guessed():
    with pytest.raises(ValueError, match=r"did you mean .*organ"):
        canonical_name("organ")


def test_name_without_neighbours_points_to_the_list():
    with pytest.raises(ValueError, match="data list"):
        canonical_name("qqqqqqqqq")


def test_only_labels_that_tell_left_from_right_forbid_mirrors():
    unsafe = {name for name, info in catalog().items() if not info.mirror_safe}
    assert unsafe == {name for name in catalog() if name.startswith("organ")}


def test_catalog_agrees_with_the_medmnist_package():
    medmnist = pytest.importorskip("medmnist")
    tasks = {
        "binary-class": "binary",
        "multi-class": "multiclass",
        "ordinal-regression": "ordinal",
        "multi-label, binary-class": "multilabel",
    }
    official = set()
    for flag, entry in medmnist.INFO.items():
        for key in entry:
            if not (found := re.fullmatch(r"MD5(_\d+)?", key)):
                continue
            info = dataset_info(flag + (found[1] or ""))
            official.add(info.name)
            assert info.md5 == entry[key]
            assert info.task == tasks[entry["task"]]
            assert info.classes == tuple(entry["label"].values())
            assert info.channels == entry["n_channels"]
            assert info.counts == tuple(entry["n_samples"][split] for split in ("train", "val", "test"))
            assert info.licence == entry["license"]
            assert info.dimensions == (3 if flag.endswith("3d") else 2)
    assert official == {name for name, info in catalog().items() if not info.made_up}
