"""Fields of the optimisation that contradict each other are refused with the way out."""

import re
from pathlib import Path

import pytest
import yaml

from raypatch.config import TrialConfig, make_config
from raypatch.trial_fields.length import training_length

BASE = {"dataset": "derma", "patch_size": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 10, "epochs": 5}, "steps=10 and epochs=5 both give the length; keep one"),
        ({"eval_every": 1.5}, "eval_every=1.5 must be a whole number of epochs, or a share below 1"),
        ({"steps": 10, "warmup_epochs": 1}, "warmup_epochs=1 does not go with steps; use warmup_steps"),
        ({"warmup_steps": 3, "warmup_epochs": 1}, "warmup_steps=3 and warmup_epochs=1 both warm up; keep one"),
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps=10 must be below steps=10"),
        ({"head_lr": 0, "encoder_lr": 0}, "encoder_lr=0 and head_lr=0 train nothing"),
        ({"head_lr": -1}, "head_lr: Input should be greater than or equal to 0, not -1"),
        ({"step_steps": 5, "schedule": "cosine"}, "step_steps=5 is of schedule=step"),
        ({"min_lr": 1e-6}, "min_lr=1e-06 is of the schedules cosine and plateau"),
        ({"min_lr": 1e-3, "schedule": "plateau"}, "min_lr=0.001 must be below the learning rate 0.0001"),
        ({"clip_norm": 0}, "clip_norm: Input should be greater than 0"),
        ({"label_smoothing": 1}, "label_smoothing: Input should be less than 1"),
        ({"patience": 0}, "patience: Input should be greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_config(BASE | change)


def test_no_new_field_renames_an_old_trial() -> None:
    assert make_config(BASE).trial_id() == "dermamnist-p4-s0-131001ff"
    assert make_config(BASE | {"head_lr": 1e-3}).trial_id() != make_config(BASE).trial_id()


def test_the_published_recipes_in_the_docs_are_trials() -> None:
    usage = (Path(__file__).parents[2] / "docs" / "USAGE.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(medmnist_plus:.*?)```", usage, re.DOTALL)
    recipes = yaml.safe_load(block)
    assert list(recipes) == ["medmnist_plus", "foundation", "pretrained_vits"]
    foundation = make_config({"dataset": "breast"} | recipes["foundation"])
    length = training_length(foundation, 546)
    assert (length.steps, length.steps_per_epoch, length.every) == (15_000, 8, 187)
    for recipe in recipes.values():
        make_config({"dataset": "breast"} | recipe)


def test_rates_and_schedules_of_the_parts() -> None:
    config = make_config(BASE | {"lr": 1e-5, "head_lr": 1e-3, "schedule": "constant", "head_schedule": "step"})
    assert config.base_rates == (1e-5, 1e-3)
    assert config.schedules == ("constant", "step")
    assert TrialConfig(dataset="derma").base_rates == (1e-4, 1e-4)
