"""The report of a segmentation: it answers as any other, from counts, with ensembles where pixels were kept."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raypatch.analysis.answer.scores.mask_ensembles import have_pixels, score_mean_masks, trial_paths
from raypatch.analysis.frames.load import load_trials
from raypatch.analysis.report import prepare_report, write_report
from raypatch.analysis.show.mask_gallery import mask_galleries
from raypatch.analysis.statistics.stacks import MisalignedError, load_stack
from raypatch.config import RunOptions
from raypatch.results import SweepPaths
from raypatch.results.masks import read_examples, read_pixels, write_pixels
from raypatch.sweep.run import ExecutorOptions, run_sweep
from raypatch.tasks import find_task
from raypatch.tasks.overlap import dice_of_images

from tiny import make_masks, tiny_study

TASK = find_task("segmentation")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    patients = {}
    for place, (split, count) in enumerate((("train", 12), ("val", 6), ("test", 6))):
        patients[f"{split}_patients"] = 100 * place + np.arange(count) // 2
    data = make_masks(folder / "squares.npz", classes=3, **patients)
    study = tiny_study(data, fixed={"image_size": 16}, seed=[0, 1])
    options = RunOptions(device="cpu", threads=1, keep_masks=True)
    run_sweep(study, folder / "run", options, ExecutorOptions(executor="local"))
    return folder / "run"


def test_the_page_answers_which_level_what_it_gains_costs_and_whether_it_is_real(run: Path, tmp_path: Path) -> None:
    written = write_report([run], tmp_path / "report", checklist=True)
    answer = written.text.splitlines()[0]
    assert answer.startswith("2D: ")
    assert "Dice" in answer.split(". ", 1)[0]
    assert "p < 0.05 for other images and other seeds" in answer
    assert "times the GFLOPs" in answer
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 6 * 3, "each test image, and the prediction of both levels"
    assert "Dice is 2 × the pixels" in page
    assert "Calibration by" not in page
    assert len(list((tmp_path / "report" / "gallery").glob("masks_squares_*.jpg"))) == 18
    classes = pd.read_csv(tmp_path / "report" / "tables" / "classes.csv")
    assert set(classes["class"]) == {"class 1", "class 2"}


def test_the_default_ensemble_is_the_mean_probability_of_each_pixel(run: Path) -> None:
    trials = load_trials(run)
    members = trials[trials["seed"] == 0]
    assert have_pixels(trial_paths(members))
    scores = score_mean_masks(members, TASK)
    pixels = [read_pixels(Path(folder) / "masks.npz", "test") for folder in members["folder"]]
    # Whole numbers: shares of 255 would not be equal where two classes are.
    mean = np.sum([each.probability for each in pixels], axis=0, dtype=np.int64)
    counts = TASK.count(np.argmax(mean, axis=1).astype(np.uint8), pixels[0].truth, 2)  # type: ignore[attr-defined]
    assert scores["test_dice"] == pytest.approx(dice_of_images(*counts).mean())
    single = score_mean_masks(members.iloc[:1], TASK)
    assert single["test_dice"] == pytest.approx(members["test_dice"].iloc[0], abs=0.01), "in 255ths"
    report = prepare_report([run])
    table = next(table for table in report.tables if table.name == "ensembles")
    assert {"mean", "seeds", "single"} == set(table.data["rule"]), "votes and weights are of classes alone"


def test_images_that_repeat_others_are_left_out_of_ensembles_too(run: Path) -> None:
    trials = load_trials(run).iloc[:1].copy()
    trials["left_out"] = [(0, 3)]
    stack = load_stack(trials.assign(test_images=4), "test")
    scores = score_mean_masks(trials, TASK)
    assert scores["test_dice"] == pytest.approx(dice_of_images(stack.probability[0], stack.label).mean(), abs=0.01)
    assert scores["val_dice"] == score_mean_masks(load_trials(run).iloc[:1], TASK)["val_dice"]


def test_pixels_of_other_masks_are_not_averaged(run: Path, tmp_path: Path) -> None:
    trials = load_trials(run).iloc[:2].copy()
    first = Path(trials["folder"].iloc[0])
    for place, folder in enumerate(("a", "b")):
        splits = {split: read_pixels(first / "masks.npz", split) for split in ("val", "test")}  # type: ignore[arg-type]
        if place:
            splits["test"].truth[0] = 1
        (tmp_path / folder).mkdir()
        write_pixels(tmp_path / folder / "masks.npz", splits)  # type: ignore[arg-type]
    trials["folder"] = [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(MisalignedError, match="predict different test images or masks"):
        score_mean_masks(trials, TASK)


def test_without_pixels_the_report_says_how_to_have_ensembles(run: Path, tmp_path: Path) -> None:
    kept = []
    for trial in SweepPaths(run).trial_folders():
        content = trial.masks.read_bytes()
        kept.append((trial.masks, content))
        trial.masks.unlink()
    try:
        report = prepare_report([run])
    finally:
        for path, content in kept:
            path.write_bytes(content)
    assert "`raypatch run --keep-masks` keeps" in " ".join(report.notes)
    assert not any(table.name == "ensembles" for table in report.tables)


def test_examples_are_the_same_images_for_every_trial_and_need_no_data(run: Path) -> None:
    found = [read_examples(trial.examples) for trial in SweepPaths(run).trial_folders()]
    first = found[0]
    assert first is not None
    assert first.images.shape == (6, 1, 16, 16)
    for each in found:
        assert each is not None
        assert np.array_equal(each.index, first.index)
    stack = load_stack(load_trials(run).iloc[:1], "test")
    shown = read_examples(Path(load_trials(run)["folder"].iloc[0]) / "examples.npz")
    assert shown is not None
    counts, truth = TASK.count(shown.predicted, shown.truth, 2)  # type: ignore[attr-defined]
    assert np.array_equal(counts, stack.probability[0][shown.index])
    assert np.array_equal(truth, stack.label[shown.index])


def test_a_gallery_shows_the_hardest_image_first(run: Path) -> None:
    from raypatch.analysis.answer.findings import conclude
    from raypatch.analysis.frames.load import load_study

    (gallery,) = mask_galleries(conclude(load_study(run)))
    means = []
    for strip in gallery.strips:
        scores = [float(picture.caption.rpartition(": ")[2]) for picture in strip.pictures[1:]]
        means.append(np.mean(scores))
    assert means == sorted(means)


def test_a_card_speaks_of_pixels(run: Path, tmp_path: Path) -> None:
    from raypatch.analysis.card import compose_card
    from raypatch.analysis.report_parts import report_markdown
    from raypatch.predict import find_trials

    text = report_markdown(compose_card(find_trials(run).trials[0]))
    assert "Segmentation of 2D images of 16 x 16 pixels" in text
    assert "Brier" not in text
    assert "raypatch evaluate" not in text
