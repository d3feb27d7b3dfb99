"""Plateau and patience: torch's own scheduler on the same scores, and where training ends."""

import math
import random

import pytest
import torch
from torch import nn

from raypatch.config import TrialConfig, make_config
from raypatch.results import EpochRow
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.optim import learning_rates
from raypatch.training.progress import advance, is_over
from raypatch.trial_fields.length import training_length

from tiny import epoch_row


def _config(**fields: object) -> TrialConfig:
    return make_config({"dataset": "derma", "patch_size": 4, "epochs": 200, "batch_size": 10} | fields)


def _row(epoch: int, loss: float) -> EpochRow:
    return epoch_row(epoch, loss, step=10 * epoch)


def _scores(seed: int, *, count: int = 120) -> list[float]:
    draws = random.Random(seed)
    scores = [1 / (1 + epoch // 8) + draws.choice([0, 0, 0.1, 0.2]) for epoch in range(count)]
    scores[7] = math.nan
    return scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("patience", [0, 1, 4])
def test_plateau_is_torchs(seed: int, patience: int) -> None:
    config = _config(schedule="plateau", lr=0.1, step_gamma=0.5, plateau_patience=patience)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=0, eps=0, min_lr=0
    )
    length = training_length(config, 100)
    progress = Progress()
    for epoch, score in enumerate(_scores(seed), start=1):
        progress = advance(progress, _row(epoch, score), config)
        scheduler.step(score)
        rate = learning_rates(config, length, 10 * epoch, progress.reductions)[0]
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
    assert progress.reductions > 1


def test_training_ends_on_the_plateau_of_the_lowest_rate() -> None:
    """1e-4, then 1e-5 and 1e-6 (arXiv 2303.07034): with patience 2 three evaluations each."""
    config = _config(schedule="plateau", lr=1e-4, step_gamma=0.1, plateau_patience=2, min_lr=1e-6)
    length = training_length(config, 100)
    progress, rates = Progress(), []
    while not is_over(progress, config, length):
        epoch = progress.epoch + 1
        rates.append(learning_rates(config, length, 10 * progress.epoch, progress.reductions)[0])
        progress = advance(progress, _row(epoch, 1.0), config)
    # The first evaluation is the best one.
    assert rates == pytest.approx([1e-4] * 4 + [1e-5] * 3 + [1e-6] * 3)


def test_a_warm_up_is_no_plateau() -> None:
    config = _config(schedule="plateau", lr=0.1, plateau_patience=1, warmup_steps=50)
    progress = Progress()
    for epoch in range(1, 5):
        progress = advance(progress, _row(epoch, float(epoch)), config)
    assert (progress.stalled, progress.reductions) == (0, 0)
    progress = advance(progress, _row(5, 9.0), config)
    assert progress.stalled == 1


def test_a_plateau_goes_by_the_score_that_selects() -> None:
    config = _config(schedule="plateau", selection="val_auc", plateau_patience=0)
    progress = advance(Progress(), epoch_row(1, val={"loss": 1.0, "auc": 0.5}), config)
    progress = advance(progress, epoch_row(2, val={"loss": 2.0, "auc": 0.6}), config)
    assert progress.reductions == 0
    progress = advance(progress, epoch_row(3, val={"loss": 0.1, "auc": 0.6}), config)
    assert progress.reductions == 1


@pytest.mark.parametrize("every", [1, 3])
def test_patience_counts_evaluations_without_a_better_score(every: int) -> None:
    config = _config(patience=5, eval_every=every)
    length = training_length(config, 100)
    progress = Progress()
    scores = [0.9, 0.8, 0.85, 0.7, *[0.7] * 20]
    seen = 0
    while not is_over(progress, config, length):
        progress = advance(progress, _row(length.next_evaluation(progress.epoch), scores[seen]), config)
        seen += 1
    assert (seen, progress.best_epoch) == (4 + 5, 4 * every)


def test_without_patience_the_length_decides() -> None:
    config = _config(epochs=3)
    length = training_length(config, 100)
    assert not is_over(Progress(2, 1, 0.5), config, length)
    assert is_over(Progress(3, 1, 0.5), config, length)
