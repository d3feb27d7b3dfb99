"""What is predicted with a run equals what the run stored; what is exported predicts the same elsewhere."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import raypatch.models.attention
from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.answer.scores.cells import ask
from raypatch.analysis.answer.scores.ensembles import level_ensembles
from raypatch.analysis.frames.load import load_study
from raypatch.config import RunOptions
from raypatch.predict import (
    FinishedTrials,
    choose_members,
    describe_choice,
    export_trial,
    find_trials,
    load_exported,
    load_model,
    predict,
)
from raypatch.results import read_predictions, write_json
from raypatch.study import Study
from raypatch.sweep.run import ExecutorOptions, run_sweep
from raypatch.tasks import find_metric

from tiny import make_images


def _run(folder: Path, dimensions: int) -> tuple[Path, Path]:
    data = make_images(folder / f"own{dimensions}.npz", dimensions=dimensions)
    run = folder / f"run{dimensions}"
    _run_on(data, run)
    return run, data


def _run_on(data: Path, run: Path, **fields: object) -> None:
    fixed = {"dataset": str(data), "model": "test_vit", "weights": "random", "epochs": 2, "lr": 1e-3, **fields}
    space = Study.model_validate({"name": "t", "fixed": fixed, "grid": {"patch_size": [8, 4], "seed": [0, 1]}})
    run_sweep(space, run, RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))


@pytest.fixture(scope="module", params=[2, 3])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return _run(tmp_path_factory.mktemp("predict"), request.param)


def _table(text: str) -> tuple[list[str], np.ndarray]:
    rows = list(csv.DictReader(text.splitlines()))
    numbers = [[np.float32(row[name]) for name in row if name.startswith("p(")] for row in rows]
    return [row["predicted"] for row in rows], np.array(numbers, np.float32)


def _stored(found: FinishedTrials, trial_id: str, split: str = "test") -> np.ndarray:
    (member,) = [trial for trial in found.trials if trial.result.trial_id == trial_id]
    return read_predictions(member.paths.predictions, split).probability  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["val", "test"])
def test_best_model_gives_the_stored_probabilities(finished: tuple[Path, Path], split: str) -> None:
    run, data = finished
    text, (used,), _ = predict(run, data, dataset=None, levels=None, split=split, device="cpu")  # type: ignore[arg-type]
    assert np.array_equal(_table(text)[1], _stored(find_trials(run), used, split))


@pytest.mark.parametrize("faster", ["plain", "fused"])
def test_rounded_attention_is_computed_as_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: str
) -> None:
    seconds = {"fused": 1.0, "plain": 2.0, faster: 0.1}
    monkeypatch.setattr(raypatch.models.attention, "_known_seconds", lambda *_: seconds)
    data = make_images(tmp_path / "own.npz", size=32)
    _run_on(data, tmp_path / "run", precision="bfloat16", image_size=32, batch_size=16)
    text, (used,), _ = predict(tmp_path / "run", data, dataset=None, levels=None, split="test", device="cpu")
    assert np.array_equal(_table(text)[1], _stored(find_trials(tmp_path / "run"), used))


def test_ensemble_is_the_mean_of_its_members(finished: tuple[Path, Path]) -> None:
    run, data = finished
    text, used, _ = predict(run, data, dataset=None, levels=["4", "8"], split="test", device="cpu")
    trials = find_trials(run)
    mean = np.mean([_stored(trials, name).astype(np.float64) for name in used], axis=0)
    names, probability = _table(text)
    assert np.allclose(probability, mean, atol=1e-7)
    assert names == [str(row.argmax()) for row in probability]


def _rescore(run: Path, scores: dict[tuple[int, int], tuple[float, float]]) -> None:
    """Give the trials of a run other validation scores: by patch size and seed, loss and balanced accuracy."""
    for trial in find_trials(run).trials:
        loss, accuracy = scores[trial.config.patch_size or 0, trial.config.seed]
        val = (trial.result.val or {}) | {"loss": loss, "balanced_accuracy": accuracy}
        write_json(trial.paths.result, trial.result.model_copy(update={"val": val}))


def _chosen(run: Path, levels: list[str] | None) -> list[tuple[int | None, int]]:
    members = choose_members(find_trials(run), None, levels)
    return [(member.config.patch_size, member.config.seed) for member in members]


def test_the_best_level_is_the_one_of_the_report_and_the_seed_the_best_of_it(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    # By loss the best single trial has patch size 8; the mean of the balanced accuracies prefers 4.
    _rescore(run, {(8, 0): (0.1, 0.7), (8, 1): (0.9, 0.7), (4, 0): (0.6, 0.7), (4, 1): (0.5, 0.9)})
    assert _chosen(run, None) == [(4, 1)]
    (conclusion,) = conclude(load_study(run), resamples=50).conclusions
    assert conclusion.answer is not None
    assert conclusion.answer.chosen == "4"
    ids = [member.result.trial_id for member in choose_members(find_trials(run), None, None)]
    said = describe_choice(run, ids)
    assert said == (
        "its level has the best mean balanced accuracy on validation, as in the report;"
        " of its seeds, 1 is the best by val loss"
    )


def test_members_of_an_ensemble_share_a_seed_as_the_report_scores_them(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    # Each level alone is best with another seed.
    _rescore(run, {(8, 0): (0.1, 0.5), (8, 1): (0.3, 0.5), (4, 0): (0.6, 0.5), (4, 1): (0.2, 0.5)})
    assert _chosen(run, ["8", "4"]) == [(8, 1), (4, 1)]
    ids = [member.result.trial_id for member in choose_members(find_trials(run), None, ["8", "4"])]
    results = load_study(run)
    question = ask(results, results.factors[0])
    scored = level_ensembles(question, question.trials, find_metric("balanced_accuracy", None))
    assert set(ids) in [set(names) for names in scored["member_ids"]]
    assert describe_choice(run, ids) == "of the seeds that have all of these, 1 is the best by val loss"
    for trial in find_trials(run).trials:
        if (trial.config.patch_size, trial.config.seed) in ((8, 0), (4, 1)):
            trial.paths.result.unlink()
    with pytest.raises(ValueError, match=r"no seed has finished at all of these levels \(.*seeds \[1\]; .*seeds \[0\]"):
        _chosen(run, ["8", "4"])


def test_exported_model_predicts_the_same(finished: tuple[Path, Path], tmp_path: Path) -> None:
    member = find_trials(finished[0]).trials[0]
    out = export_trial(finished[0], member.result.trial_id, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    images = torch.rand(2, 3, *(8,) * member.dataset.dimensions)
    expected = load_model(member)(images)
    assert torch.equal(load_exported(out)(images), expected)
    if member.dataset.dimensions == 2:
        loaded = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        assert torch.equal(loaded(images), expected)
        assert list(loaded.pretrained_cfg["mean"]) == [0.5, 0.5, 0.5]


def test_pictures_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    from PIL import Image

    run, data = _run(tmp_path, 2)
    folder = tmp_path / "pictures"
    folder.mkdir()
    with np.load(data) as stored:
        for index, image in enumerate(stored["test_images"]):
            Image.fromarray(image).save(folder / f"{index:03}.png")
    (folder / "notes.txt").write_text("not a picture")
    from_npz, _, _ = predict(run, data, dataset=None, levels=None, split="test", device="cpu")
    from_folder, _, _ = predict(run, folder, dataset=None, levels=None, split="test", device="cpu")
    assert np.array_equal(_table(from_folder)[1], _table(from_npz)[1])
    assert from_folder.splitlines()[1].startswith("000.png,")


def test_volumes_are_read_with_their_axes_turned(tmp_path: Path) -> None:
    import nibabel

    run, data = _run(tmp_path, 3)
    with np.load(data) as stored:
        volume = stored["test_images"][0].copy()
    volume.flat[:2] = 0, 255  # the stretch to 0..255 then changes nothing
    arrays = {f"{split}_images": volume[None] for split in ("train", "val", "test")}
    np.savez(tmp_path / "one.npz", **arrays, **{f"{s}_labels": np.array([[0]]) for s in ("train", "val", "test")})
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.eye(4)), tmp_path / "one.nii.gz")
    from_npz, _, _ = predict(run, tmp_path / "one.npz", dataset=None, levels=None, split="test", device="cpu")
    from_nifti, _, _ = predict(run, tmp_path / "one.nii.gz", dataset=None, levels=None, split="test", device="cpu")
    assert np.array_equal(_table(from_nifti)[1], _table(from_npz)[1])


def test_wrong_requests_are_explained(finished: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = finished
    (tmp_path / "empty").mkdir()

    def ask(folder: Path = run, source: Path = data, **changes: object) -> None:
        words: dict[str, object] = {"dataset": None, "levels": None, "split": "test", "device": "cpu"} | changes
        predict(folder, source, **words)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="has no finished trial"):
        ask(folder=tmp_path)
    with pytest.raises(ValueError, match="'2' is no patch size of this study; it has 8, 4"):
        ask(levels=["2"])
    with pytest.raises(ValueError, match="the run has no finished trial of breastmnist"):
        ask(dataset="breast")
    with pytest.raises(ValueError, match="holds no"):
        ask(source=tmp_path / "empty")
    with pytest.raises(ValueError, match="no finished trial 'x'"):
        export_trial(run, "x", tmp_path / "out")
    with pytest.raises(ValueError, match="is not what `raypatch export` writes"):
        load_exported(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    run, data = _run(tmp_path, 2)
    for trial in find_trials(run).trials:
        trial.paths.best_weights.write_bytes(trial.paths.best_weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="missing or damaged"):
        predict(run, data, dataset=None, levels=None, split="test", device="cpu")


def test_files_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    run, data = _run(tmp_path, 2)
    with np.load(data) as stored:
        np.savez(data, **{**stored, "test_images": stored["test_images"][::-1]})
    _run_on(data, run)
    with pytest.raises(ValueError, match=r"several such datasets.*file:own2@.*file:own2@") as refused:
        choose_members(find_trials(run), "own2", None)
    name = str(refused.value).rpartition(" ")[2]
    assert {member.config.dataset for member in choose_members(find_trials(run), name, ["4", "8"])} == {name}


def test_trials_selected_by_different_figures_are_not_compared(tmp_path: Path) -> None:
    run, data = _run(tmp_path, 2)
    _run_on(data, run, selection="val_auc")
    with pytest.raises(ValueError, match="selected by val_auc and val_loss"):
        choose_members(find_trials(run), None, None)


def test_a_trial_of_a_resolution_sees_new_images_as_it_saw_its_own(tmp_path: Path) -> None:
    files = {size: make_images(tmp_path / f"own_{size}.npz", size=size) for size in (8, 16)}
    fixed = {"dataset": "own", "model": "test_vit", "weights": "random", "epochs": 1, "lr": 1e-3, "patch_size": 8}
    content = {
        "name": "t",
        "compare": "resolution",
        "fixed": fixed | {"image_size": 16, "resize": "pad_mean"},
        "grid": {"resolution": [8, 16]},
        "resolutions": {"own": files},
    }
    run = tmp_path / "run"
    run_sweep(
        Study.model_validate(content), run, RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local")
    )
    for size, data in files.items():
        text, (used,), _ = predict(run, data, dataset=None, levels=[str(size)], split="test", device="cpu")
        assert np.array_equal(_table(text)[1], _stored(find_trials(run), used))
    # Larger ones are brought to the resolution, where padding alone would refuse them.
    text, _, _ = predict(run, files[16], dataset=None, levels=["8"], split="test", device="cpu")
    assert len(_table(text)[0]) == 12
