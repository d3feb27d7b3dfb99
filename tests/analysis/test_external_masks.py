"""A trained segmentation on images and masks of another source: classes matched, seeds and their mean, the drop."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raypatch.analysis.external.evaluate import Asked, evaluate_external
from raypatch.analysis.written import Written
from raypatch.cli import main as cli
from raypatch.config import RunOptions
from raypatch.predict import find_trials, predict_masks
from raypatch.results import SweepPaths
from raypatch.sweep.run import ExecutorOptions, run_sweep

from tiny import make_masks, tiny_study

NAMES = ("background", "nucleus", "wall")
Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arrays]:
    """A run of two seeds on squares of two named classes, which finds some of them, and its data."""
    folder = tmp_path_factory.mktemp("external_masks")
    patients = {}
    for split, count in (("train", 24), ("val", 6), ("test", 6)):
        patients[f"{split}_patients"] = np.array([f"{split}{place // 2}" for place in range(count)])
    data = make_masks(folder / "squares.npz", classes=3, count=24, mask_names=np.array(NAMES), **patients)
    with np.load(data) as stored:
        arrays = dict(stored)
    fixed = {"image_size": 16, "epochs": 8, "lr": 3e-3, "mask_loss": "both", "augmentation": "none"}
    # In bfloat16 a pixel whose classes are level may fall to either.
    study = tiny_study(data, fixed={**fixed, "precision": "float32"}, patch_size=[4], seed=[0, 1])
    options = RunOptions(device="cpu", threads=1, keep_masks=True)
    run_sweep(study, folder / "run", options, ExecutorOptions(executor="local"))
    return folder / "run", arrays


def evaluated(run: Path, data: Path, out: Path, **more: Any) -> Written:
    return evaluate_external(run, Asked(data=data, device="cpu", **more), out)


def table(written: Written, name: str, *index: str) -> pd.DataFrame:
    return pd.read_csv(written.folder / "tables" / f"{name}.csv").set_index(list(index))


def new_images(path: Path, count: int = 10, **arrays: Any) -> Path:
    """Images that the run has not seen, squares among them."""
    random = np.random.default_rng(7)
    masks = np.zeros((count, 16, 16), np.uint8)
    for image, mask in enumerate(masks):
        row, column = random.integers(0, 9, 2)
        mask[row : row + 5, column : column + 5] = 1 + image % 2
    images = (random.integers(0, 90, masks.shape) + 60 * masks).astype(np.uint8)
    content: Arrays = {"test_images": images, "test_masks": masks, "mask_names": np.array(NAMES)}
    kept = {name: values for name, values in (content | arrays).items() if values is not None}
    np.savez(path, **kept)
    return path


@contextmanager
def without_pixels(run: Path) -> Iterator[None]:
    """The run as it is without --keep-masks."""
    kept = {trial.masks: trial.masks.read_bytes() for trial in SweepPaths(run).trial_folders()}
    for path in kept:
        path.unlink()
    yield
    for path, content in kept.items():
        path.write_bytes(content)


def test_the_test_split_under_other_numbers_scores_as_inside(trained: tuple[Path, Arrays], tmp_path: Path) -> None:
    run, arrays = trained
    other = tmp_path / "other.npz"
    own = {name: arrays[name] for name in ("test_images", "test_patients")}
    turned = np.array([0, 2, 1], np.uint8)[arrays["test_masks"]]
    np.savez(other, **own, test_masks=turned, mask_names=np.array(["nothing", " WALL", "Nucleus"]))
    written = evaluated(run, other, tmp_path / "out")
    scores = table(written, "scores", "metric")
    assert list(scores.index) == ["dice", "iou", "pooled_dice", "pooled_iou"]
    assert 0.2 < scores.loc["dice", "internal"] < 1, "empty masks alone would be 0.17"
    assert scores["external"].to_numpy() == pytest.approx(scores["internal"].to_numpy(), abs=1e-6)
    assert scores["difference"].to_numpy() == pytest.approx(np.zeros(4), abs=1e-6)
    assert (scores["difference_low"] < 0).all()
    classes = table(written, "classes", "class", "data")
    assert classes.loc[("wall", "internal"), "f1"] == pytest.approx(classes.loc[("wall", "external"), "f1"])
    assert "1 external mask of 6 is empty, and 1 of 6 internal ones" in written.text
    assert "0 of them repeat train or val, 6 the internal test" in written.text


def test_each_seed_and_the_mean_of_their_probabilities_stand_beside_each_other(
    trained: tuple[Path, Arrays], tmp_path: Path
) -> None:
    run, _ = trained
    patients = np.array([f"new{place // 2}" for place in range(10)])
    other = new_images(tmp_path / "other.npz", test_patients=patients)
    written = evaluated(run, other, tmp_path / "out")
    members = table(written, "members", "model", "metric")
    for trial in find_trials(run).trials:
        assert trial.result.test is not None
        row = members.loc[(f"seed {trial.config.seed}", "dice")]
        assert row["internal"] == pytest.approx(trial.result.test["dice"], abs=1e-6)
    # The one seed that `predict` takes, by another way.
    single = predict_masks(run, other, dataset=None, levels=None, split="test", device="cpu")
    (member,) = [trial for trial in find_trials(run).trials if trial.result.trial_id in single.members]
    assert single.dice is not None
    assert members.loc[(f"seed {member.config.seed}", "dice"), "external"] == pytest.approx(single.dice.mean())
    together = members.loc[("mean of 2", "dice")]
    assert together["external_low"] < together["external"] < together["external_high"]
    assert together["difference"] == pytest.approx(together["external"] - together["internal"])
    images = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert images["dice"].mean() == pytest.approx(together["external"])
    assert list(images["patient"]) == patients.tolist()
    assert images.filter(like="share(").sum(axis=1).to_numpy() == pytest.approx(np.ones(10))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 8 * 2 == len(list((tmp_path / "out" / "gallery").iterdir()))
    assert "does not apply to masks: thresholds, ROC curves and calibration" in page
    assert {"report.md", "tables.tex"} <= {path.name for path in written.folder.iterdir()}


def test_without_pixels_only_the_other_source_has_a_score_of_the_mean(
    trained: tuple[Path, Arrays], tmp_path: Path
) -> None:
    run, _ = trained
    with without_pixels(run):
        written = evaluated(run, new_images(tmp_path / "other.npz"), tmp_path / "out")
    row = table(written, "members", "model", "metric").loc[("mean of 2", "dice")]
    assert np.isnan(row["internal"])
    assert row["external"] > 0
    assert "The mean of the seeds has no internal score" in written.text


def test_images_that_the_run_learnt_from_are_left_out(trained: tuple[Path, Arrays], tmp_path: Path) -> None:
    run, arrays = trained
    new = new_images(tmp_path / "new.npz")
    with np.load(new) as stored:
        images = np.concatenate([arrays["train_images"][3:9], stored["test_images"]])
        masks = np.concatenate([arrays["train_masks"][3:9], stored["test_masks"]])
    mixed = new_images(tmp_path / "mixed.npz", test_images=images, test_masks=masks)
    both = evaluated(run, mixed, tmp_path / "mixed")
    alone = evaluated(run, new, tmp_path / "alone")
    assert "6 of 16 external images repeat images that the models were trained or chosen on" in both.text
    for name in ("scores", "members"):
        assert table(both, name, "metric")["external"].equals(table(alone, name, "metric")["external"])
    assert table(both, "classes", "class").equals(table(alone, "classes", "class"))
    assert (tmp_path / "mixed" / "tables" / "everything.csv").exists()
    assert len(pd.read_csv(tmp_path / "mixed" / "repeats.csv")) == 6
    page = (tmp_path / "mixed" / "report.html").read_text()
    assert "test:6<" in page, "the first image that is new"
    assert "test:3<" not in page


def test_classes_are_renamed_merged_and_left_to_the_background(trained: tuple[Path, Arrays], tmp_path: Path) -> None:
    run, _ = trained
    with np.load(new_images(tmp_path / "plain.npz")) as stored:
        split_up = stored["test_masks"].copy()
    # Half of each nucleus under a name of its own, and a class that the model has not learnt.
    split_up[:, ::2][split_up[:, ::2] == 1] = 3
    split_up[0, 0] = 4
    names = np.array(["background", "cell body", "wall", "cell rim", "dirt"])
    other = new_images(tmp_path / "other.npz", test_masks=split_up, mask_names=names)
    with pytest.raises(ValueError, match=r"cell body, cell rim, dirt of the masks are none of the model's.*--rename"):
        evaluated(run, other, tmp_path / "out")
    rename = {"Cell Body": "nucleus", "cell rim": "nucleus", "dirt": "background"}
    renamed = table(evaluated(run, other, tmp_path / "out", rename=rename), "scores", "metric")
    plain_masks = np.where(np.isin(split_up, (3, 1)), 1, np.where(split_up == 2, 2, 0)).astype(np.uint8)
    plain = new_images(tmp_path / "again.npz", test_masks=plain_masks)
    assert renamed.equals(table(evaluated(run, plain, tmp_path / "again"), "scores", "metric"))


def test_a_class_that_no_external_mask_shows_is_said(trained: tuple[Path, Arrays], tmp_path: Path) -> None:
    run, _ = trained
    with np.load(new_images(tmp_path / "plain.npz")) as stored:
        nuclei = np.where(stored["test_masks"] == 1, 1, 0).astype(np.uint8)
    written = evaluated(run, new_images(tmp_path / "few.npz", test_masks=nuclei), tmp_path / "out")
    assert "No external mask shows wall: whatever is predicted to be that counts as wrong." in written.text


@pytest.mark.parametrize(
    ("arrays", "words", "said"),
    [
        ({"test_masks": None}, (), "test_masks and test_images are needed to test a segmentation, and it has"),
        ({}, ("--split", "val"), "it has those of test: choose with --split"),
        ({"test_masks": np.zeros((10, 8, 8), np.uint8)}, (), "each image needs a mask of its own size"),
        ({"test_masks": np.full((10, 16, 16), 3)}, (), "holds class 3, out of range: there are classes 0 to 2"),
        ({"test_masks": np.full((10, 16, 16), 255)}, (), "a mask of 0 and 255 is (masks > 0)"),
        ({"test_masks": np.full((10, 16, 16), 0.5)}, (), "must be whole numbers"),
        ({"mask_names": None}, (), "--rename 'class 1=wall'"),
        ({"mask_names": np.array(["wall", "nucleus", "no"])}, (), "0 must be the background, background"),
        ({"test_images": np.zeros((10, 16, 16, 3), np.uint8)}, (), "has 2D images of 3 channel(s); the model takes"),
        ({}, ("--sensitivity", ".9"), "whose pixels take their most probable class: leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    trained: tuple[Path, Arrays],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arrays: Arrays,
    words: tuple[str, ...],
    said: str,
) -> None:
    other = new_images(tmp_path / "other.npz", **arrays)
    command = ["raypatch", "evaluate", str(trained[0]), "--data", str(other), "--out", str(tmp_path / "out"), *words]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_is_to_be_packed_first(trained: tuple[Path, Arrays], tmp_path: Path) -> None:
    from PIL import Image

    for name in ("images", "masks"):
        (tmp_path / "theirs" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "theirs" / name / "1.png")
    with pytest.raises(ValueError, match=r"is no \.npz.*`raypatch data pack` makes it"):
        evaluated(trained[0], tmp_path / "theirs", tmp_path / "out")
