"""A trained run on data of another source: truth and patients kept, classes matched, the drop with its interval."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as reference

from raypatch.analysis.external.evaluate import Asked, evaluate_external
from raypatch.config import RunOptions
from raypatch.predict import find_trials, predict
from raypatch.results import read_predictions
from raypatch.sweep.run import ExecutorOptions, run_sweep

from tiny import make_images, tiny_study

NAMES = ("benign", "malignant")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two seeds on named classes, its data, and its test split as others would have it."""
    folder = tmp_path_factory.mktemp("external")
    with np.load(make_images(folder / "plain.npz")) as stored:
        arrays = dict(stored)
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        arrays[f"{split}_patients"] = np.array([f"{split}{place % 2}{place // 6}" for place in range(count)])
    data = folder / "named.npz"
    np.savez(data, **arrays, class_names=np.array(NAMES))
    run = folder / "run"
    study = tiny_study(data, patch_size=[4], seed=[0, 1])
    run_sweep(study, run, RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return run, arrays, folder


def turned(arrays, path, names=("Malignant", "BENIGN"), **more):
    """The test split with its classes numbered the other way round."""
    labels = 1 - arrays["test_labels"]
    np.savez(path, test_images=arrays["test_images"], test_labels=labels, class_names=np.array(names), **more)
    return path


def asked(data, **more):
    return Asked(data=data, device="cpu", **more)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def scores_of(written):
    return pd.read_csv(written.folder / "tables" / "scores.csv").set_index("metric")


def test_the_test_split_under_other_numbers_scores_as_inside(trained, tmp_path):
    run, arrays, _ = trained
    more = {"test_patients": arrays["test_patients"], "test_ids": np.array([f"pic {i}" for i in range(12)])}
    written = evaluate_external(run, asked(turned(arrays, tmp_path / "other.npz", **more)), tmp_path / "out")
    scores = scores_of(written)
    assert scores["external"].to_numpy() == pytest.approx(scores["internal"].to_numpy(), abs=1e-6)
    assert scores["difference"].to_numpy() == pytest.approx(np.zeros(len(scores)), abs=1e-6)
    assert (scores["difference_low"] < 0).all()
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert [row["name"] for row in rows] == [f"pic {i}" for i in range(12)]
    assert rows[0]["truth"] == "BENIGN"
    patients = rows_of(tmp_path / "out" / "patients.csv")
    assert [row["patient"] for row in patients] == ["test00", "test01", "test10", "test11"]
    first = [float(row["p(malignant)"]) for row in rows if row["patient"] == "test00"]
    assert float(patients[0]["p(malignant)"]) == pytest.approx(np.mean(first), abs=1e-6)
    assert {"report.html", "report.md", "tables.tex"} <= {path.name for path in written.folder.iterdir()}


def test_scores_and_calibration_are_scikit_learns(trained, tmp_path):
    run, arrays, _ = trained
    # Other images: the noise of the training split.
    external = tmp_path / "other.npz"
    np.savez(
        external, test_images=arrays["train_images"], test_labels=arrays["train_labels"], class_names=np.array(NAMES)
    )
    scores = scores_of(evaluate_external(run, asked(external), tmp_path / "out"))
    found = find_trials(run)
    inside = [read_predictions(trial.paths.predictions, "test") for trial in found.trials]
    auc = np.mean([reference.roc_auc_score(own.label, own.probability[:, 1]) for own in inside])
    assert scores.loc["auc", "internal"] == pytest.approx(auc, abs=1e-6)
    brier = np.mean([reference.brier_score_loss(own.label, own.probability[:, 1]) for own in inside])
    assert scores.loc["brier", "internal"] == pytest.approx(brier, abs=1e-6)
    gap = scores["external"] - scores["internal"]
    assert scores["difference"].to_numpy() == pytest.approx(gap.to_numpy(), abs=1e-9)


def test_class_folders_are_read_with_their_truth(trained, tmp_path):
    run, arrays, _ = trained
    pictures = tmp_path / "pictures"
    for index, (image, label) in enumerate(zip(arrays["test_images"], arrays["test_labels"][:, 0], strict=True)):
        folder = pictures / ("cancer" if label else "benign")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    written = evaluate_external(run, asked(pictures, rename={"Cancer": "malignant"}), tmp_path / "out")
    scores = scores_of(written)
    assert scores["external"].to_numpy() == pytest.approx(scores["internal"].to_numpy(), abs=1e-6)
    table = predict(run, pictures, dataset=None, levels=None, split="test", device="cpu").table
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["truth"] for row in rows} == {"cancer", "benign"}
    with pytest.raises(ValueError, match=r"cancer are none of the model's.*benign, malignant.*--rename"):
        evaluate_external(run, asked(pictures), tmp_path / "out")


def test_a_table_gives_truth_and_patients_and_may_have_gaps(trained, tmp_path):
    run, arrays, _ = trained
    lines = ["picture;who;finding"]
    for index, (image, label) in enumerate(zip(arrays["test_images"], arrays["test_labels"][:, 0], strict=True)):
        Image.fromarray(image).save(tmp_path / f"{index:02}.png")
        lines.append(f"{index:02}.png;{arrays['test_patients'][index]};{NAMES[label]}")
    table = tmp_path / "list.csv"
    table.write_text("\n".join(lines) + "\n")
    columns = {"image": "picture", "patient": "who", "label": "finding"}
    scores = scores_of(evaluate_external(run, asked(table, columns=columns), tmp_path / "out"))
    assert scores["external"].to_numpy() == pytest.approx(scores["internal"].to_numpy(), abs=1e-6)
    assert pd.read_csv(tmp_path / "out" / "tables" / "patients.csv")["external"].notna().all()


def test_data_without_labels_are_told_apart(trained, tmp_path):
    run, arrays, _ = trained
    bare = tmp_path / "bare.npz"
    np.savez(bare, test_images=arrays["test_images"])
    with pytest.raises(ValueError, match="has no labels"):
        evaluate_external(run, asked(bare), tmp_path / "out")
    several = np.eye(2, dtype=np.int64)[arrays["test_labels"][:, 0]]
    np.savez(bare, test_images=arrays["test_images"], test_labels=several, class_names=np.array(NAMES))
    with pytest.raises(ValueError, match="the labels are several per image, the model's task is binary"):
        evaluate_external(run, asked(bare), tmp_path / "out")


def test_a_class_that_the_others_lack_is_said(trained, tmp_path):
    run, arrays, _ = trained
    ones = arrays["test_labels"][:, 0] == 1
    few = tmp_path / "few.npz"
    np.savez(
        few,
        test_images=arrays["test_images"][ones],
        test_labels=arrays["test_labels"][ones],
        class_names=np.array(NAMES),
    )
    written = evaluate_external(run, asked(few), tmp_path / "out")
    assert "No external image of benign" in written.text
    assert np.isnan(scores_of(written).loc["auc", "external"])


def test_images_that_the_run_learnt_from_are_said_and_left_out_of_the_answer(trained, tmp_path):
    run, arrays, _ = trained
    random = np.random.default_rng(5)
    new = random.integers(0, 256, (10, 8, 8)).astype(np.uint8)
    labels = np.concatenate([arrays["train_labels"][:6], arrays["val_labels"][:4], np.arange(10)[:, None] % 2])
    images = np.concatenate([arrays["train_images"][:6], arrays["val_images"][:4], new])
    who = np.array(["train00", "new", "val10", *["new"] * 17])
    names = np.array(NAMES)
    np.savez(tmp_path / "mixed.npz", test_images=images, test_labels=labels, test_patients=who, class_names=names)
    np.savez(tmp_path / "new.npz", test_images=new, test_labels=labels[10:], class_names=names)
    written = evaluate_external(run, asked(tmp_path / "mixed.npz"), tmp_path / "mixed")
    said = "10 of 20 external images repeat images that the models were trained or chosen on (6 of train, 4 of val)"
    page = (tmp_path / "mixed" / "report.html").read_text()
    assert said in written.text
    assert said in page
    assert (
        "2 external patients have the name of a patient of the run (train 1, val 1, test 0): train00, val10."
        in written.text
    )
    assert "on the 10 images that repeat none of train or val" in written.text
    seen = {
        row["split"]: (row["images"], row["equal"], row["patients"]) for row in written.data["tables"]["seen"]["rows"]
    }
    assert seen == {"train": (6, 6, 1), "val": (4, 4, 1), "test": (0, 0, 0)}
    rows = rows_of(tmp_path / "mixed" / "repeats.csv")
    assert [(row["split"], int(row["index"])) for row in rows[:6]] == [("train", place) for place in range(6)]
    alone = scores_of(evaluate_external(run, asked(tmp_path / "new.npz"), tmp_path / "new"))
    mixed = scores_of(written)
    assert mixed["external"].to_numpy() == pytest.approx(alone["external"].to_numpy(), abs=1e-6)
    for table in ("areas", "data"):
        one, other = (pd.read_csv(tmp_path / place / "tables" / f"{table}.csv") for place in ("mixed", "new"))
        counts = one.columns.intersection(["images", "positives", "total"])
        assert len(counts)
        assert one[counts].equals(other[counts]), table
    assert "everything" in written.data["tables"]
    assert not (tmp_path / "new" / "repeats.csv").exists()


def test_the_run_s_own_images_are_no_external_test(trained, tmp_path):
    run, _, folder = trained
    written = evaluate_external(run, asked(folder / "named.npz", split="train"), tmp_path / "out")
    assert "No external test: every image is one of the run's own. 24 of them repeat train or val" in written.text
    written = evaluate_external(run, asked(folder / "named.npz"), tmp_path / "out")
    assert "0 of them repeat train or val, 12 the internal test" in written.text
    assert "12 external images repeat images of the internal test" in written.text


def test_data_that_is_gone_leaves_unsaid_what_was_learnt_from(trained, tmp_path):
    run, arrays, folder = trained
    external = turned(arrays, tmp_path / "other.npz")
    data = folder / "named.npz"
    data.rename(folder / "away")
    try:
        written = evaluate_external(run, asked(external), tmp_path / "out")
    finally:
        (folder / "away").rename(data)
    assert f"Not checked: whether these images repeat those that the models learnt from, since cannot read {data}" in (
        written.text
    )
