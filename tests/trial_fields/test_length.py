"""How long a training is: epochs, steps and evaluations, and what is told of them on the way."""

import pytest

from raypatch.config import TrialConfig, make_config
from raypatch.trial_fields.length import share_done, share_of_row, training_length, words_done


def _config(**fields: object) -> TrialConfig:
    return make_config({"dataset": "derma", "patch_size": 4, "batch_size": 64} | fields)


def test_steps_are_taken_exactly_and_cut_the_last_epoch_short() -> None:
    # BreastMNIST, 546 images: 9 steps an epoch, 1,667 epochs of which the last has 6 steps.
    length = training_length(_config(steps=15_000, eval_every=0.1), 546)
    assert (length.steps_per_epoch, length.epochs, length.steps) == (9, 1667, 15_000)
    assert length.every == 1667 // 10
    assert length.evaluations() == [*range(166, 1667, 166), 1667]
    assert length.steps_at(1667) - length.steps_at(1666) == 6


def test_short_batches_are_kept_or_dropped() -> None:
    assert training_length(_config(epochs=2), 130).steps == 6
    assert training_length(_config(epochs=2, drop_last=True), 130).steps == 4
    with pytest.raises(ValueError, match=r"drop_last leaves no step: batch_size=64 is above the 50 training images"):
        training_length(_config(drop_last=True), 50)


@pytest.mark.parametrize("epochs", range(1, 64))
def test_a_share_of_the_epochs_is_that_of_the_study(epochs: int) -> None:
    length = training_length(_config(epochs=epochs, eval_every=0.1), 640)
    assert length.every == max(1, epochs // 10)
    seen, epoch = [], 0
    while epoch < length.epochs:
        epoch = length.next_evaluation(epoch)
        seen.append(epoch)
    assert seen == length.evaluations()


def test_a_warm_up_must_end() -> None:
    with pytest.raises(ValueError, match=r"warmup_steps=1000 must be below the training's 90 steps, 10 epochs of 9"):
        training_length(_config(epochs=10, warmup_steps=1000), 546)


def test_what_is_done_is_told_in_the_unit_of_the_length() -> None:
    by_epochs, by_steps = _config(epochs=50, eval_every=5), _config(steps=200, eval_every=0.25)
    assert (words_done(by_epochs, 10, 90), words_done(by_steps, 10, 90)) == ("10/50", "90/200 steps")
    assert (share_done(by_epochs, 10, 90), share_done(by_steps, 10, 90)) == (0.2, 0.45)
    assert share_of_row(by_epochs, 10, 90) == pytest.approx(0.1)
    assert share_of_row(by_steps, 10, 90) == 0.25
