"""Masks of new images: in the geometry of their files, as PNG, NIfTI or .npz; and the model exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from raypatch.config import RunOptions
from raypatch.data.inputs.shape import fit, unfit
from raypatch.data.layout.npz import inspect_npz
from raypatch.data.pack import PackOptions, pack
from raypatch.predict import export_trial, find_trials, load_exported, load_model, predict, predict_masks, write_masks
from raypatch.results import read_predictions
from raypatch.sweep.run import ExecutorOptions, run_sweep

from tiny import tiny_study


def _write_pictures(folder: Path, count: int, seed: int) -> None:
    """Pictures of 30 x 20 pixels with a bright square, and their masks of 0 and 255."""
    random = np.random.default_rng(seed)
    for number in range(count):
        mask = np.zeros((20, 30), np.uint8)
        row, column = random.integers(0, 10), random.integers(0, 20)
        mask[row : row + 9, column : column + 9] = 255
        image = (random.integers(0, 60, mask.shape) + mask // 2).astype(np.uint8)
        for name, values in (("images", image), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / name / f"{number:02}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The run folder, the packed file and the pictures."""
    folder = tmp_path_factory.mktemp("predict_masks")
    _write_pictures(folder / "pictures", 40, 0)
    data = pack(folder / "pictures", folder / "squares.npz", PackOptions(size=16), say=bool)
    study = tiny_study(data, fixed={"epochs": 12, "lr": 3e-3, "mask_loss": "both", "augmentation": "none"})
    run_sweep(study, folder / "run", RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return folder / "run", data, folder / "pictures"


def test_image_and_mask_folders_are_packed_for_a_segmentation(made: tuple[Path, Path, Path]) -> None:
    info = inspect_npz(made[1])
    assert (info.task, info.classes, info.size) == ("segmentation", ("background", "foreground"), 16)
    with np.load(made[1]) as stored:
        assert set(np.unique(stored["train_masks"])) == {0, 1}


def test_masks_of_an_npz_give_the_stored_counts_and_the_table_has_their_dice(made: tuple[Path, Path, Path]) -> None:
    run, data, _ = made
    found = predict_masks(run, data, dataset=None, levels=["4"], split="test", device="cpu")
    (used,) = found.members
    member = next(trial for trial in find_trials(run).trials if trial.result.trial_id == used)
    stored = read_predictions(member.paths.predictions, "test")
    assert [int(mask.sum()) for mask in found.masks] == stored.probability[:, 0, 1].tolist()
    assert found.dice is not None
    assert member.result.test is not None
    assert found.dice.mean() == pytest.approx(member.result.test["dice"])
    heading, first = found.table().splitlines()[:2]
    assert heading == "name,share(background),share(foreground),dice"
    shares = list(map(float, first.split(",")[1:3]))
    assert sum(shares) == pytest.approx(1)


def test_masks_of_pictures_lie_where_the_pictures_do(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run, _, pictures = made
    found = predict_masks(run, pictures / "images", dataset=None, levels=["8", "4"], split="test", device="cpu")
    assert len(found.members) == 2, "the mean of two levels"
    written = write_masks(found, tmp_path / "masks")
    assert [path.name for path in written[:2]] == ["00.png", "01.png"]
    overlaps = []
    for path in written:
        with Image.open(path) as picture:
            assert picture.mode == "P"
            predicted = np.array(picture)
        truth = np.array(Image.open(pictures / "masks" / path.name)) > 0
        assert predicted.shape == truth.shape == (20, 30)
        overlaps.append(2 * (predicted.astype(bool) & truth).sum() / (predicted.sum() + truth.sum()))
    assert np.mean(overlaps) > 0.6, "shifted or mirrored they would not overlap"
    # What is written can be packed again.
    packed = pack_again(pictures, tmp_path)
    assert inspect_npz(packed).task == "segmentation"


def pack_again(pictures: Path, folder: Path) -> Path:
    (folder / "images").symlink_to(pictures / "images")
    return pack(folder, folder / "again.npz", PackOptions(size=16), say=bool)


def test_one_npz_of_masks(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run, data, _ = made
    found = predict_masks(run, data, dataset=None, levels=None, split="val", device="cpu")
    (path,) = write_masks(found, tmp_path / "out.npz")
    with np.load(path) as stored:
        assert stored["masks"].shape[1:] == (16, 16)
        assert stored["class_names"].tolist() == ["background", "foreground"]
        assert len(stored["names"]) == len(stored["masks"])


def test_a_nifti_slice_gets_a_mask_in_its_own_place(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    run, _, pictures = made
    picture = np.array(Image.open(pictures / "images" / "03.png"))
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[:3, 3] = 7, -3, 11
    # A screen shows x and y from their other end.
    values = picture[::-1, ::-1].T[:, :, None]
    (tmp_path / "in").mkdir()
    volume = nibabel.Nifti1Image(np.ascontiguousarray(values), affine)
    volume.set_sform(affine, code=1)
    nibabel.save(volume, tmp_path / "in" / "slice.nii.gz")
    found = predict_masks(run, tmp_path / "in", dataset=None, levels=["4"], split="test", device="cpu")
    (path,) = write_masks(found, tmp_path / "out")
    assert path.name == "slice.nii.gz"
    mask = nibabel.load(path)
    assert mask.shape == volume.shape
    assert np.allclose(mask.affine, affine)
    bright = values > 90
    predicted = np.asanyarray(mask.dataobj) > 0
    assert 2 * (bright & predicted).sum() / (bright.sum() + predicted.sum()) > 0.6


def test_the_command_writes_a_table_and_a_folder_of_masks(
    made: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypatch.cli.main import app

    run, _, pictures = made
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["predict", str(run), "--input", str(pictures / "images")])
    assert result.exit_code == 0, result.output
    assert "40 mask files: predictions_masks" in result.output
    assert len(list((tmp_path / "predictions_masks").glob("*.png"))) == 40


def test_an_exported_model_gives_logits_of_pixels(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    member = find_trials(made[0]).trials[0]
    out = export_trial(made[0], member.result.trial_id, tmp_path / "out")
    images = torch.rand(2, 3, 16, 16)
    logits = load_exported(out)(images)
    assert logits.shape == (2, 1, 16, 16)
    assert torch.equal(logits, load_model(member)(images))


def test_masks_are_no_classes(made: tuple[Path, Path, Path]) -> None:
    with pytest.raises(ValueError, match="has segmentations: predict_masks predicts by these"):
        predict(made[0], made[1], dataset=None, levels=None, split="test", device="cpu")


@pytest.mark.parametrize("edges", [(20, 30), (30, 20), (16, 16), (7, 50)])
@pytest.mark.parametrize("shape", ["pad", "squeeze"])
def test_what_was_fitted_is_brought_back(edges: tuple[int, int], shape: str) -> None:
    rows, columns = (torch.linspace(0, 1, edge) for edge in edges)
    image = 1 + rows[:, None] + 2 * columns
    fitted = fit(image, 2, 64, None, shape, None)
    back = unfit(fitted[None], edges, None, shape, None)[0]
    assert back.shape == edges
    assert (back - image).abs().max() < 0.15
