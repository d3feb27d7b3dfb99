"""A segmentation: it learns and stores counts from which its scores follow."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import augment, augment_masks, draw_parameters
from raypatch.results import TrialPaths, read_epochs, read_predictions
from raypatch.results.masks import read_examples
from raypatch.study.resolve import resolve_trials
from raypatch.tasks import find_task
from raypatch.training.evaluate import mask_logits
from raypatch.training.mask_loss import make_mask_loss, soft_dice_loss
from raypatch.trial import prepare_trial, train_trial

from tiny import make_masks, tiny_mask_trial, tiny_study


@pytest.mark.parametrize(("classes", "mask_loss"), [(2, "both"), (3, "dice"), (2, "bce")])
def test_it_learns_to_find_what_is_bright(tmp_path: Path, classes: int, mask_loss: str) -> None:
    data = make_masks(tmp_path / "a.npz", classes=classes, count=24)
    config, options = tiny_mask_trial(data, epochs=8, lr=3e-3, mask_loss=mask_loss)
    paths = TrialPaths(tmp_path)
    result = train_trial(config, paths, options)
    rows = read_epochs(paths.epochs)
    assert result.val is not None
    assert result.val["dice"] == max(row.val["dice"] for row in rows) > rows[0].val["dice"]
    assert result.val["dice"] > (0.5 if classes == 2 else 0.25)
    assert result.dataset is not None
    assert (result.dataset.task, len(result.dataset.classes)) == ("segmentation", classes)
    assert result.dataset.balance[0][:2] == (24, 23), "images that show a class"


def test_stored_counts_give_the_scores_that_masks_give(tmp_path: Path) -> None:
    config, options = tiny_mask_trial(make_masks(tmp_path / "a.npz", classes=3))
    result = train_trial(config, TrialPaths(tmp_path), options)
    stored = read_predictions(tmp_path / "predictions.npz", "test")
    task = find_task("segmentation")
    from_counts = task.score(stored.probability, stored.label)
    assert result.test is not None
    del from_counts["loss"]
    assert {name: result.test[name] for name in from_counts} == from_counts
    truth = np.load(tmp_path / "a.npz")["test_masks"]
    assert stored.label.tolist() == [[int((mask == label).sum()) for label in (1, 2)] for mask in truth]
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert {"test_truth", "test_prediction", "test_intersection"} <= set(arrays)
        assert "test_probability" not in arrays


def test_masks_are_measured_in_the_files_size_whatever_the_model_sees(tmp_path: Path) -> None:
    config, options = tiny_mask_trial(make_masks(tmp_path / "a.npz"), image_size=8, patch_size=2)
    trial = prepare_trial(config, TrialPaths(tmp_path), options)
    assert trial.val.labels.shape == (6, 16, 16)
    (logits,) = mask_logits(trial.prepared, trial.val.images, 16)
    assert logits.shape == (6, 1, 16, 16)
    targets = trial.prepared.targets(trial.val.labels, None)
    assert targets.shape == (6, 8, 8)
    train_trial(config, TrialPaths(tmp_path), options)
    examples = read_examples(tmp_path / "examples.npz")
    assert examples is not None
    assert examples.images.shape[2:] == examples.predicted.shape[1:] == (16, 16)


def test_a_study_of_masks_alone_is_a_segmentation_and_keeps_the_epoch_of_the_best_dice(tmp_path: Path) -> None:
    trials = resolve_trials(tiny_study(make_masks(tmp_path / "a.npz"))).trials
    assert {(trial.task, trial.selection) for trial in trials} == {("segmentation", "val_dice")}
    assert "mask_loss" not in trials[0].canonical_json()


BAD = [
    ({"method": "linear_probe"}, "method=linear_probe is for classes of images; a segmentation trains by finetune"),
    ({"head": "mlp"}, "a segmentation has its own head: leave it out"),
    ({"resize": "pad", "image_size": 32}, "resize=pad puts a border around images"),
    ({"selection": "val_auc"}, "selection=val_auc is no score that training computes"),
    ({"class_weights": "balanced"}, "class_weights=balanced is for classes of which each image has one"),
    ({"task": "binary"}, "has masks and no labels: say task=segmentation, not binary"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_what_a_segmentation_cannot_be_is_refused(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    study = tiny_study(make_masks(tmp_path / "a.npz"), fixed=fields)
    with pytest.raises(ValueError, match=message):
        resolve_trials(study)


def test_a_loss_of_masks_is_for_a_segmentation() -> None:
    from raypatch.tasks.imbalance import check_loss_fields

    config = TrialConfig(dataset="phantom2d", mask_loss="dice")
    with pytest.raises(ValueError, match="mask_loss=dice is for a segmentation, not for multiclass"):
        check_loss_fields(config, find_task("multiclass"))


def test_soft_dice_of_sure_predictions_is_that_of_their_masks() -> None:
    masks = torch.zeros(2, 6, 6, dtype=torch.uint8)
    masks[0, :3] = 1
    sure = torch.where(masks.bool(), 40.0, -40.0).unsqueeze(1)
    assert soft_dice_loss(sure, masks).item() == pytest.approx(0, abs=1e-6)
    other = sure.flip(2)
    # No pixel is shared in the first image, both are empty in the second: (0 + 1) / (36 + 1), and 1.
    assert soft_dice_loss(other, masks).item() == pytest.approx(1 - (1 / 37 + 1) / 2)
    by_class = torch.cat([-sure, sure], dim=1)
    assert soft_dice_loss(by_class, masks).item() == pytest.approx(0, abs=1e-6)
    both = make_mask_loss("both", find_task("segmentation"))(other, masks)
    parts = find_task("segmentation").loss(other, masks) + soft_dice_loss(other, masks)
    assert torch.equal(both, parts)


@pytest.mark.parametrize("elastic", [False, True])
def test_masks_move_as_their_images_do(elastic: bool) -> None:
    masks = torch.zeros(16, 32, 32, dtype=torch.uint8)
    masks[:, 8:20, 5:18] = 1
    parameters = draw_parameters(16, (32, 32), torch.Generator().manual_seed(0), mirror_safe=True, elastic=elastic)
    parameters[:, 6:10] = torch.tensor([1.0, 0, 1, 0])  # colours as they are
    moved = augment(masks.unsqueeze(1) * 255, parameters)[:, 0]
    found = augment_masks(masks, parameters)
    assert found.dtype == torch.uint8
    assert set(found.unique().tolist()) == {0, 1}
    # Sure pixels of the picture are those of the mask; only those on the border may differ.
    sure = (moved < 0.05) | (moved > 0.95)
    assert torch.equal(found[sure].bool(), moved[sure] > 0.5)
    assert sure.float().mean() > 0.8


def test_an_elastic_deformation_leaves_the_other_draws_alone() -> None:
    plain = draw_parameters(4, (32, 32), torch.Generator().manual_seed(3), mirror_safe=True)
    bent = draw_parameters(4, (32, 32), torch.Generator().manual_seed(3), mirror_safe=True, elastic=True)
    assert torch.equal(bent[:, :10], plain)
    assert bent[:, 10:].std() == pytest.approx(10 / 512, rel=0.3)


def test_a_validation_split_that_shows_no_class_is_refused_before_the_start(tmp_path: Path) -> None:
    from raypatch.sweep.executors.preflight import check_selection
    from raypatch.tasks.seen import describe_seen

    config, options = tiny_mask_trial(make_masks(tmp_path / "a.npz", val_masks=np.zeros((6, 16, 16), np.uint8)))
    with pytest.raises(ValueError, match="the val masks of a are all empty, so that val_dice says nothing"):
        check_selection(config, describe_seen(config, options), options)


def test_a_share_of_the_images_keeps_some_with_and_some_without_a_mask(tmp_path: Path) -> None:
    masks = np.zeros((12, 16, 16), np.uint8)
    masks[:6, :4, :4] = 1
    config, options = tiny_mask_trial(make_masks(tmp_path / "a.npz", train_masks=masks), train_fraction=0.34)
    train = prepare_trial(config, TrialPaths(tmp_path / "trial"), options).train
    assert train.labels.flatten(1).any(dim=1).tolist().count(True) == 2
    assert len(train) == 4


def test_a_task_on_masks_that_lacks_a_part_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"is no task on masks: it lacks count; what each part does stands in"):
        find_task("own_members:HalfMaskTask")


def test_segmentations_train_alone(tmp_path: Path) -> None:
    from raypatch.methods import group_key

    config, _ = tiny_mask_trial(make_masks(tmp_path / "a.npz"))
    assert group_key(config) is None
