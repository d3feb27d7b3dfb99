"""One dataset at several resolutions: which file is read, and that the dataset stays one."""

import re

import pytest

from raypatch.config import TrialConfig, make_config
from raypatch.data.catalog import catalog
from raypatch.trial_fields.resolution import resolutions_of, source_name

OWN = "file:breast@28=0123456789ab+128=ba9876543210"


def test_medmnist_files_are_read_under_one_dataset() -> None:
    assert resolutions_of("breastmnist") == {
        28: "breastmnist",
        64: "breastmnist_64",
        128: "breastmnist_128",
        224: "breastmnist_224",
    }
    assert list(resolutions_of("vesselmnist3d")) == [28, 64]
    config = TrialConfig(dataset="BreastMNIST", resolution=128)
    assert (config.dataset, config.source) == ("breastmnist", "breastmnist_128")
    assert config.dataset_label == "breastmnist"
    # An image has one index in all of them.
    counts = {catalog()[name].counts for name in resolutions_of("breastmnist").values()}
    assert len(counts) == 1


def test_without_a_resolution_a_dataset_is_read_as_before() -> None:
    for name in catalog():
        assert source_name(name, None) == name


def test_own_files_are_named_by_content() -> None:
    assert resolutions_of(OWN) == {28: "file:breast@0123456789ab", 128: "file:breast@ba9876543210"}
    config = TrialConfig(dataset=OWN, resolution=128)
    assert (config.dataset, config.dataset_label) == (OWN, "breast")
    assert config.source == "file:breast@ba9876543210"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "breast", "resolution": 96}, "resolution=96: breastmnist comes in 28, 64, 128, 224 pixels"),
        ({"dataset": "vessel", "resolution": 224}, "vesselmnist3d comes in 28, 64 pixels"),
        ({"dataset": "breastmnist_64", "resolution": 64}, "breastmnist_64 is one file of one size"),
        ({"dataset": "phantom2d", "resolution": 28}, "phantom2d is one file of one size"),
        ({"dataset": "file:a@0123456789ab", "resolution": 28}, "list own files by size under `resolutions:`"),
        ({"dataset": OWN}, "choose by resolution, one of 28, 128"),
        ({"dataset": OWN, "resolution": 64}, "comes in 28, 128 pixels"),
    ],
)
def test_a_resolution_that_is_not_there_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_config(fields)
