"""Losses for classes that are not alike in number equal torch's, torchvision's and scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from raypatch.config import TrialConfig, make_config
from raypatch.tasks import find_task
from raypatch.tasks.classification import OneClass
from raypatch.training.loss import balanced_order, balanced_weights, focal_of_classes, focal_of_labels, make_loss

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])


def _logits(columns: int) -> torch.Tensor:
    return torch.randn(10, columns, generator=torch.Generator().manual_seed(0)) * 3


def _config(**fields: object) -> TrialConfig:
    return make_config({"dataset": "derma", "patch_size": 4} | fields)


def test_without_such_fields_the_loss_is_the_tasks_own() -> None:
    task = find_task("multiclass")
    assert make_loss(_config(), task, LABELS) == task.loss


def test_class_weights_are_scikit_learns() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    assert balanced_weights(LABELS).tolist() == pytest.approx(expected.tolist())
    assert balanced_weights(LABELS)[LABELS].mean().item() == pytest.approx(1)


def test_the_weighted_loss_is_torchs_over_images() -> None:
    loss = make_loss(_config(class_weights="balanced", label_smoothing=0.1), find_task("multiclass"), LABELS)
    weights = balanced_weights(LABELS)
    each = F.cross_entropy(_logits(3), LABELS, weights, reduction="none", label_smoothing=0.1)
    assert loss(_logits(3), LABELS).item() == pytest.approx(each.mean().item())


def test_parts_of_a_batch_add_up() -> None:
    fields = {"class_weights": "balanced", "focal_gamma": 2, "label_smoothing": 0.1}
    loss = make_loss(_config(**fields), find_task("multiclass"), LABELS)
    parts = zip(_logits(3).split(4), LABELS.split(4), strict=True)
    total = sum(loss(logits, labels).item() * len(labels) / 10 for logits, labels in parts)
    assert loss(_logits(3), LABELS).item() == pytest.approx(total)


def test_focal_loss_of_labels_is_torchvisions() -> None:
    truth = torch.randint(0, 2, (10, 4), generator=torch.Generator().manual_seed(1))
    expected = sigmoid_focal_loss(_logits(4), truth.float(), alpha=-1, gamma=2, reduction="mean")
    assert focal_of_labels(_logits(4), truth, 2.0).item() == pytest.approx(expected.item())
    loss = make_loss(_config(focal_gamma=2), find_task("multilabel"), truth)
    assert loss(_logits(4), truth).item() == pytest.approx(expected.item())


def test_focal_loss_of_two_classes_is_that_of_their_difference() -> None:
    logits, labels = _logits(2), LABELS.clamp(max=1)
    difference = logits[:, 1] - logits[:, 0]
    expected = sigmoid_focal_loss(difference, labels.float(), alpha=-1, gamma=1.5, reduction="mean")
    assert focal_of_classes(logits, labels, 1.5).item() == pytest.approx(expected.item(), rel=1e-5)
    assert focal_of_classes(logits, labels, 0.0).item() == pytest.approx(F.cross_entropy(logits, labels).item())


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_sure_answer_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    focal_of_classes(logits, torch.tensor([0]), gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_balanced_sampling_shows_every_class_alike() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    order = balanced_order(labels, torch.Generator().manual_seed(0))
    shares = torch.bincount(labels[order]) / len(order)
    assert len(order) == 1000
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.05)


class _OwnLoss(OneClass):
    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.sum()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_weights": "balanced"}, "class_weights=balanced is for classes of which each image has one"),
        ({"sampling": "balanced"}, "sampling=balanced is for classes"),
        ({"label_smoothing": 0.1}, "label_smoothing=0.1 is for classes"),
    ],
)
def test_what_labels_that_overlap_cannot_have_is_refused(fields: dict[str, object], message: str) -> None:
    from raypatch.data.catalog import dataset_info
    from raypatch.study.fit import check_fit

    config = make_config({"dataset": "chest", "patch_size": 4} | fields)
    with pytest.raises(ValueError, match=message):
        check_fit(config, dataset_info("chest"))


def test_a_task_with_a_loss_of_its_own_keeps_it() -> None:
    with pytest.raises(ValueError, match="focal_gamma=2 replaces a cross-entropy, which own has not"):
        make_loss(_config(focal_gamma=2), _OwnLoss("own"), LABELS)
