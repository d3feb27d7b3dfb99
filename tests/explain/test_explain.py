"""A finished run explained: what is written, what the report shows of it, and what is refused."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from raypatch.analysis.answer.saliency import summarise_saliency
from raypatch.analysis.frames.explained import load_explained
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import write_report
from raypatch.analysis.show.explained import make_galleries
from raypatch.analysis.show.gallery import GAP
from raypatch.config import RunOptions
from raypatch.data.layout.archive import DataError
from raypatch.explain.run import explain
from raypatch.explain.subject import choose_subjects, open_subject
from raypatch.predict import find_trials
from raypatch.results import SweepPaths, read_predictions
from raypatch.results.explained import SaliencyRow, read_pictures, read_rows
from raypatch.study import Study
from raypatch.sweep.run import ExecutorOptions, run_sweep

from tiny import make_images, tiny_study


def _add_masks(path: Path, *, value: int = 1) -> Path:
    """Masks that mark the upper left quarter, or eighth, of each image."""
    with np.load(path) as stored:
        arrays = dict(stored)
    for split in ("train", "val", "test"):
        masks = np.zeros(arrays[f"{split}_images"].shape, np.uint8)
        half = masks.shape[1] // 2
        masks[(slice(None), *[slice(half)] * (masks.ndim - 1))] = value
        arrays[f"{split}_masks"] = masks
        arrays[f"{split}_patients"] = np.array([f"p{number // 2}" for number in range(len(masks))])
    np.savez(path, **arrays)
    return path


def _run(study: Study, folder: Path) -> Path:
    run_sweep(study, folder, RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return folder


@pytest.fixture(scope="module")
def with_masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    data = _add_masks(make_images(folder / "flat.npz"))
    run = _run(tiny_study(data, fixed={"epochs": 1, "image_size": 16}, seed=[0, 1]), folder / "run")
    explain(run, device="cpu")
    return run


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    data = make_images(folder / "deep.npz", dimensions=3)
    run = _run(tiny_study(data, fixed={"epochs": 1, "image_size": 8}), folder / "run")
    explain(run, device="cpu")
    return run


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_trial_of_each_level_is_explained_and_all_share_a_seed(with_masks: Path) -> None:
    rows = _table(SweepPaths(with_masks).explanation.distances)
    levels = {(row["level"], re.search(r"-s(\d)-", row["trial_id"])[1]) for row in rows}  # type: ignore[index]
    assert len({seed for _, seed in levels}) == 1
    assert [level for level, _ in sorted(levels)] == ["patch size 4", "patch size 8"]
    # Six layers of two heads each, of two levels.
    assert len(rows) == 2 * 6 * 2
    assert all(0 < float(row["distance"]) < 16 for row in rows)
    assert {row["images"] for row in rows} == {"12"}


def test_every_map_of_every_image_is_measured_against_its_mask(with_masks: Path) -> None:
    rows = read_rows(SweepPaths(with_masks).explanation.saliency, SaliencyRow)
    heads = [f"attention head {head}" for head in (1, 2)]
    maps = ["attention", *heads, "grad-cam", "random", "centre"]
    assert list(dict.fromkeys(row.map for row in rows)) == maps
    assert len(rows) == 2 * len(maps) * 12
    stored = {}
    for trial in find_trials(with_masks).trials:
        stored[trial.result.trial_id] = read_predictions(trial.paths.predictions, "test")
    for row in rows:
        own = stored[row.trial_id]
        assert row.probability == pytest.approx(own.probability[row.index].max())
        assert (row.label, row.predicted) == (str(own.label[row.index]), str(own.probability[row.index].argmax()))
        assert row.patient == f"p{row.index // 2}"
        assert 0 <= row.pointing <= 1
        assert 0 <= row.mass_ratio <= 4
        assert 0 < row.half_area <= 0.5
        assert np.isnan([row.deletion, row.insertion]).all()


def test_intervals_are_over_images_by_patient(with_masks: Path) -> None:
    found = load_explained(load_study(with_masks).trials)
    assert found is not None
    summary = summarise_saliency(found.saliency, resamples=200)
    own = summary[summary["map"] == "random"].iloc[0]
    part = found.saliency[(found.saliency["map"] == "random") & (found.saliency["trial_id"] == own["trial_id"])]
    assert own["mass_ratio"] == pytest.approx(part["mass_ratio"].mean())
    assert own["mass_ratio_low"] < own["mass_ratio"] < own["mass_ratio_high"]
    assert 0 <= own["pointing_low"] <= own["pointing"] <= own["pointing_high"] <= 1
    alone = summarise_saliency(found.saliency.assign(patient=""), resamples=200)
    assert alone["mass_ratio"].equals(summary["mass_ratio"])
    assert not alone["mass_ratio_low"].equals(summary["mass_ratio_low"])


def test_the_report_shows_it_and_needs_nothing_from_outside(with_masks: Path, tmp_path: Path) -> None:
    written = write_report([with_masks], tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "Where the models look" in page
    assert "Do the maps lie on what the masks mark?" in page
    assert page.count("data:image/jpeg;base64,") == len(list((tmp_path / "report" / "gallery").iterdir())) > 8
    assert re.search(r"patch size 4, grad-cam: [01] \d+\xa0%", page)
    for name in ("figures/attention_distance.svg", "tables/saliency_masks.csv"):
        assert tmp_path / "report" / name in written.files
        assert (tmp_path / "report" / name).stat().st_size > 100


def test_volumes_without_masks_are_deleted_and_inserted_and_shown_as_three_planes(volumes: Path) -> None:
    paths = SweepPaths(volumes).explanation
    rows = read_rows(paths.saliency, SaliencyRow)
    for row in rows:
        assert np.isnan([row.pointing, row.mass_ratio]).all()
        measured = 0 < row.deletion <= 1 and 0 < row.insertion <= 1
        assert measured != row.map.startswith("attention head")
    pictures = read_pictures(paths.pictures(rows[0].trial_id))
    assert pictures.images.shape[1:] == (1, 8, 8, 8)
    assert pictures.maps["grad-cam"].shape == pictures.halves["attention"].shape == (len(pictures.index), 8, 8, 8)
    assert set(pictures.kind) <= {"right, confident", "right, unsure", "wrong, confident", "wrong, unsure"}
    found = load_explained(load_study(volumes).trials)
    assert found is not None
    (gallery,) = make_galleries(found)
    edge, columns, _ = gallery.strips[0].pictures[0].pixels.shape
    assert columns == 3 * edge + 2 * GAP
    assert gallery.strips[0].pictures[0].wide


def test_what_is_chosen_can_be_said(with_masks: Path) -> None:
    found = find_trials(with_masks)
    assert [each.config.patch_size for each in choose_subjects(found, None, ["4"], None)] == [4]
    trial = found.trials[0].result.trial_id
    assert [each.result.trial_id for each in choose_subjects(found, None, None, trial)] == [trial]
    with pytest.raises(ValueError, match="no finished trial 'nobody'"):
        choose_subjects(found, None, None, "nobody")


def test_another_call_replaces_what_an_earlier_one_wrote(with_masks: Path, tmp_path: Path) -> None:
    run = shutil.copytree(with_masks, tmp_path / "run")
    trial = find_trials(run).trials[0].result.trial_id
    explain(run, trial=trial, images=5, device="cpu")
    paths = SweepPaths(run).explanation
    assert {row["trial_id"] for row in _table(paths.distances)} == {trial}
    assert [file.name for file in paths.folder.glob("*.npz")] == [f"{trial}.npz"]
    assert len({row["index"] for row in _table(paths.saliency)}) == 5


def test_more_images_than_there_are(with_masks: Path) -> None:
    with pytest.raises(ValueError, match="--images 13: the test split of flat has 12; give 1 to 12"):
        explain(with_masks, images=13, device="cpu")


def test_masks_of_another_size(with_masks: Path, tmp_path: Path) -> None:
    data = _add_masks(make_images(tmp_path / "flat.npz"))
    with np.load(data) as stored:
        arrays = dict(stored)
    arrays["test_masks"] = arrays["test_masks"][:, :5]
    np.savez(data, **arrays)
    run = _run(tiny_study(data, fixed={"epochs": 1, "image_size": 8}, patch_size=[8]), tmp_path / "run")
    with pytest.raises(DataError, match=r"test_masks has shape \(12, 5, 8\), test_images has"):
        explain(run, device="cpu")


def test_masks_follow_their_images_into_the_models_geometry(with_masks: Path, tmp_path: Path) -> None:
    data = _add_masks(make_images(tmp_path / "flat.npz"), value=3)
    fixed = {"epochs": 1, "image_size": 12, "resize": "pad_mean"}
    run = _run(tiny_study(data, fixed=fixed, patch_size=[6]), tmp_path / "run")
    (member,) = find_trials(run).trials
    subject = open_subject(member, "6", RunOptions(device="cpu", files={member.config.dataset: data}), None)
    assert subject.masks is not None
    wanted = np.zeros((12, 12), bool)
    wanted[2:6, 2:6] = True
    assert (subject.masks == wanted).all()


def test_a_model_without_map_or_attention_and_which_have_one(tmp_path: Path) -> None:
    data = make_images(tmp_path / "flat.npz")
    study = tiny_study(data, fixed={"epochs": 1, "image_size": 8, "model": "own_members:SmallNets"}, patch_size=[None])
    run = _run(study, tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"own_members:SmallNets has neither .* plain Vision Transformers .* have both"
    ):
        explain(run, device="cpu")


def test_a_cnn_beside_a_transformer_has_no_distance_and_that_is_said(tmp_path: Path) -> None:
    data = make_images(tmp_path / "flat.npz", size=64)
    backbones = {"vit": {"model": "test_vit", "patch_size": 32}, "cnn": {"model": "resnet10t", "patch_size": None}}
    content = {
        "name": "tiny",
        "compare": ["backbone"],
        "fixed": {"weights": "random", "epochs": 1, "batch_size": 8, "lr": 1e-3, "image_size": 64},
        "grid": {"dataset": [str(data)], "backbone": backbones, "seed": [0]},
    }
    run = _run(Study.model_validate(content), tmp_path / "run")
    found = explain(run, images=4, device="cpu")
    assert any(note.startswith("resnet10t has no attention") for note in found.notes)
    assert any("flat has no test_masks" in note for note in found.notes)
    paths = SweepPaths(run).explanation
    assert {row["level"] for row in _table(paths.distances)} == {"vit"}
    by_level = {(row["level"], row["map"]) for row in _table(paths.saliency)}
    assert {name for level, name in by_level if level == "cnn"} == {"grad-cam", "random", "centre"}


def test_a_segmentation_is_refused(with_masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypatch.explain.run.reads_masks", lambda task: task == "binary")
    with pytest.raises(ValueError, match="is a segmentation, which says itself where things are"):
        explain(with_masks, device="cpu")


def test_stored_neighbours_are_no_network(tmp_path: Path) -> None:
    data = make_images(tmp_path / "flat.npz")
    run = _run(tiny_study(data, fixed={"method": "knn", "image_size": 8}, patch_size=[4]), tmp_path / "run")
    with pytest.raises(ValueError, match="is no network"):
        explain(run, device="cpu")
