"""One own dataset of several sizes: given in the study or as a folder, named by content, read at each resolution."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypatch.config import RunOptions
from raypatch.data.source import describe, load_split
from raypatch.models.build import architecture_key
from raypatch.results import SweepPaths
from raypatch.results.repeated import read_repeated_images
from raypatch.study import Study
from raypatch.study.files import default_run_name, load_study
from raypatch.study.resolve import StudyTrials, resolve_trials
from raypatch.sweep.twins import note_twins

from tiny import make_images


def _resolve(fixed: dict[str, Any] | None = None, **parts: Any) -> StudyTrials:
    values: dict[str, Any] = {"model": "test_vit", "weights": "random", "patch_size": 4, "image_size": 32}
    content = {"name": "sizes", "compare": "resolution", "fixed": values | (fixed or {})} | parts
    return resolve_trials(Study.model_validate(content))


def _two_sizes(folder: Path) -> dict[int, str]:
    folder.mkdir(exist_ok=True)
    small, large = make_images(folder / "lesions.npz", size=8), make_images(folder / "lesions_16.npz", size=16)
    return {8: str(small), 16: str(large)}


def test_official_files_of_several_sizes_are_one_dataset() -> None:
    found = _resolve(grid={"dataset": ["breast", "derma"], "resolution": [28, 64, 128], "seed": [0, 1]})
    assert {config.dataset for config in found.trials} == {"breastmnist", "dermamnist"}
    assert {config.source for config in found.trials} >= {"breastmnist", "breastmnist_64", "dermamnist_128"}
    (factor,) = found.factors
    assert factor.names == ("28", "64", "128")
    # What the network sees does not follow the file, so that resolutions are compared at one cost.
    assert len({architecture_key(config) for config in found.trials}) == 1


def test_without_an_image_size_the_network_sees_the_resolution() -> None:
    grid = {"dataset": ["breast"], "resolution": [28, 64], "patch_size": [4]}
    study = Study.model_validate({"name": "sizes", "compare": "resolution", "grid": grid})
    assert [config.image_size for config in resolve_trials(study).trials] == [28, 64]


@pytest.mark.parametrize("form", ["study", "folder"])
def test_own_files_of_several_sizes_are_one_dataset(tmp_path: Path, form: str) -> None:
    files = _two_sizes(tmp_path / "lesions")
    parts: dict[str, Any] = {"grid": {"dataset": ["lesions"], "resolution": [8, 16]}, "resolutions": {"lesions": files}}
    if form == "folder":
        parts = {"grid": {"dataset": [str(tmp_path / "lesions")], "resolution": [8, 16]}}
    found = _resolve(**parts)
    first, second = found.trials
    assert first.dataset == second.dataset
    assert first.dataset_label == "lesions"
    options = RunOptions(files=found.files)
    for config, edge in ((first, 8), (second, 16)):
        assert describe(config.source, files=options.files).size == edge
        images = load_split(config.source, "test", files=options.files).images
        assert images.shape[1:] == (edge, edge)


def test_both_forms_name_the_same_trial(tmp_path: Path) -> None:
    files = _two_sizes(tmp_path / "lesions")
    grid = {"resolution": [8, 16]}
    listed = _resolve(grid=grid | {"dataset": ["lesions"]}, resolutions={"lesions": files})
    in_folder = _resolve(grid=grid | {"dataset": [str(tmp_path / "lesions")]})
    assert [one.trial_id() for one in listed.trials] == [one.trial_id() for one in in_folder.trials]


def test_a_rule_may_choose_the_resolution(tmp_path: Path) -> None:
    files = _two_sizes(tmp_path / "lesions")
    rules = [{"if": {"dimensions": 2, "task": "binary"}, "set": {"resolution": 16}}]
    grid = {"dataset": ["lesions"], "seed": [0, 1]}
    found = _resolve(grid=grid, resolutions={"lesions": files}, when=rules, compare=[])
    assert {config.resolution for config in found.trials} == {16}


def test_twins_are_noted_once_for_all_sizes(tmp_path: Path) -> None:
    files = _two_sizes(tmp_path / "lesions")
    grid = {"dataset": ["lesions"], "resolution": [8, 16]}
    found = _resolve(grid=grid, resolutions={"lesions": files})
    paths = SweepPaths(tmp_path / "run")
    paths.folder.mkdir()
    note_twins(found.trials, paths, RunOptions(files=found.files), print)
    assert list(read_repeated_images(paths.twins).test) == [found.trials[0].dataset]


def _change(path: str, **arrays: Any) -> None:
    with np.load(path) as stored:
        content = dict(stored)
    np.savez(path, **(content | arrays))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": np.zeros((12, 1), np.uint8)}, "must have the same images in the same order, and their test_"),
        ({"mirror_safe": np.array(True)}, "must have the same images; mirror_safe is True in one and False"),
        ({"task": np.array("ordinal")}, "must have the same images; task is ordinal in one and binary in the other"),
    ],
)
def test_files_of_other_images_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    files = _two_sizes(tmp_path / "lesions")
    _change(files[16], **change)
    with pytest.raises(ValueError, match=re.escape(message)):
        _resolve(grid={"dataset": ["lesions"], "resolution": [8, 16]}, resolutions={"lesions": files})


def test_files_are_checked_for_their_size(tmp_path: Path) -> None:
    files = _two_sizes(tmp_path / "lesions")
    wrong = {8: files[8], 32: files[16]}
    with pytest.raises(ValueError, match="has images of 16 pixels, not 32; name it so"):
        _resolve(grid={"dataset": ["lesions"], "resolution": [8, 32]}, resolutions={"lesions": wrong})
    make_images(tmp_path / "lesions" / "more.npz", size=8)
    with pytest.raises(ValueError, match=r"lesions.npz and more.npz in .* both have 8 pixels; keep one"):
        _resolve(grid={"dataset": [str(tmp_path / "lesions")], "resolution": [8, 16]})


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"resize": "pad_mean"}, "resize=pad_mean needs image_size of at least 64, the size of breastmnist_64, not 32"),
        ({"steps": 5, "epochs": 100}, "steps=5 and epochs=100 both give the length; keep one"),
        ({"method": "linear_probe", "encoder_lr": 1e-4}, "encoder_lr=0.0001 is for fine-tuning; a linear probe trains"),
        ({"drop_last": True, "batch_size": 600}, "batch_size=600 is above the 546 training images"),
        ({"epochs": 1, "warmup_steps": 69, "batch_size": 8}, "warmup_steps=69 must be below the training's 69 steps"),
    ],
)
def test_fields_that_do_not_fit_the_data_are_refused(fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        _resolve(fixed, grid={"dataset": ["breast"], "resolution": [28, 64]})


def test_a_search_takes_no_steps() -> None:
    from raypatch.study.resolve import resolve_search

    search = {"fields": {"lr": {"loguniform": [1e-5, 1e-3]}}}
    grid = {"dataset": ["derma"], "patch_size": [14, 7]}
    study = Study.model_validate({"name": "s", "fixed": {"steps": 50}, "grid": grid, "search": search})
    with pytest.raises(ValueError, match="steps=50: a search judges and saves by epochs; give these"):
        resolve_search(study)


def test_a_run_is_named_by_the_folder_or_the_name(tmp_path: Path) -> None:
    _two_sizes(tmp_path / "lesions")
    original = load_study("grid")
    assert default_run_name(original.override({"dataset": [str(tmp_path / "lesions")]}), original) == "grid-lesions"
