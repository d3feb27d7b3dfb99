"""DINO's parts against an independent writing of the paper's formulas, and a learner's steps."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.source import describe
from raypatch.models.prepared import PreparedModel, prepare_model
from raypatch.objectives.dino import (
    DinoLearner,
    ProjectionHead,
    dino_loss,
    follow,
    sharpen,
)
from raypatch.objectives.schedules import (
    Moment,
    learning_rate,
    teacher_momentum,
    teacher_temperature,
    weight_decay,
)
from raypatch.objectives.step import PretrainingStep
from raypatch.training.optim import make_optimizer
from raypatch.trial_fields.length import Length

from tiny import make_images, tiny_trial


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def test_the_loss_is_that_of_the_paper() -> None:
    """Algorithm 1 of arXiv 2104.14294, image by image in NumPy: H(t1, s2)/2 + H(t2, s1)/2, with local views too."""
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(5, 7, 11)), random.normal(size=(2, 7, 11))
    centre, cold, warm = random.normal(size=11), 0.05, 0.2
    terms = []
    for place in range(2):
        for view in range(5):
            if view != place:
                for image in range(7):
                    target = _softmax((teacher[place, image] - centre) / cold)
                    terms.append(-np.sum(target * np.log(_softmax(student[view, image] / warm))))
    targets = [sharpen(torch.tensor(outputs), torch.tensor(centre), cold) for outputs in teacher]
    found = dino_loss(list(torch.tensor(student)), targets, warm)
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_the_teacher_follows_as_a_moving_average() -> None:
    torch.manual_seed(0)
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = 0.9 * teacher.weight.detach() + 0.1 * student.weight.detach()
    follow(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight.detach(), expected)
    before = teacher.weight.detach().clone()
    follow(teacher, student, 1.0)
    assert torch.equal(teacher.weight.detach(), before)


def test_the_projection_gives_cosines() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(width=6, hidden=9, prototypes=40)
    features = torch.randn(5, 6)
    narrow = head.mlp(features)
    expected = torch.nn.functional.cosine_similarity(narrow[:, None], head.last.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)


def _config(**fields: object) -> TrialConfig:
    values: dict[str, object] = {
        "dataset": "breastmnist",
        "method": "pretrain",
        "schedule": "cosine",
        "lr": 0.01,
        "min_lr": 0.001,
        "warmup_epochs": 2,
        "epochs": 10,
        "weight_decay": 0.04,
        "last_weight_decay": 0.4,
        "temperature_epochs": 4,
    }
    return TrialConfig.model_validate(values | fields)


def test_schedules_at_their_ends_and_middle() -> None:
    config = _config()
    length = Length(steps_per_epoch=10, steps=100, epochs=10, every=1)

    def at(step: int) -> Moment:
        return Moment(step, step // 10, length)

    assert learning_rate(config, at(0)) == pytest.approx(0.01 / 21)
    assert learning_rate(config, at(19)) == pytest.approx(0.01 * 20 / 21)
    assert learning_rate(config, at(20)) == pytest.approx(0.01)
    assert learning_rate(config, at(60)) == pytest.approx((0.01 + 0.001) / 2)
    assert learning_rate(config, at(99)) == pytest.approx(0.001, rel=0.01)
    constant = _config(schedule="constant", min_lr=0)
    assert learning_rate(constant, at(60)) == 0.01
    assert weight_decay(config, at(0)) == pytest.approx(0.04)
    assert weight_decay(config, at(50)) == pytest.approx(0.22)
    assert weight_decay(config, at(99)) == pytest.approx(0.4, rel=0.01)
    assert teacher_momentum(config, at(0)) == pytest.approx(0.99)
    assert teacher_momentum(config, at(50)) == pytest.approx(0.995)
    assert teacher_momentum(config, at(99)) == pytest.approx(1, abs=1e-5)
    temperatures = [teacher_temperature(config, epoch) for epoch in range(6)]
    assert temperatures == pytest.approx([*np.linspace(0.04, 0.07, 4), 0.07, 0.07])
    assert teacher_temperature(_config(temperature_epochs=0), 0) == 0.07


@pytest.fixture
def made(tmp_path: Path) -> tuple[TrialConfig, RunOptions]:
    return tiny_trial(
        make_images(tmp_path / "a.npz", size=16),
        method="pretrain",
        schedule="cosine",
        image_size=16,
        projection_width=16,
        prototypes=32,
        local_views=2,
        drop_path=0.0,
        optimizer="sgd",
    )


def _learner(config: TrialConfig, options: RunOptions) -> tuple[DinoLearner, PreparedModel]:
    info = describe(config.source, data_dir=None, files=options.files)
    prepared = prepare_model(config, info, options)
    return DinoLearner(prepared, config, info), prepared


MOMENT = Moment(0, 0, Length(steps_per_epoch=3, steps=9, epochs=3, every=1))


def _step(config: TrialConfig, options: RunOptions, *, micro_batch: int, moment: Moment = MOMENT) -> DinoLearner:
    learner, prepared = _learner(config, options)
    step = PretrainingStep(learner, make_optimizer(learner.student, config), prepared, config, micro_batch=micro_batch)
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 1, 16, 16), generator=random, dtype=torch.uint8)
    step(images, learner.draw(8, random), moment)
    return learner


def test_micro_batches_add_up_to_the_batch(made: tuple[TrialConfig, RunOptions]) -> None:
    whole, parts = (_step(*made, micro_batch=size).state_dict() for size in (8, 3))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


def test_a_step_moves_student_teacher_and_centre(made: tuple[TrialConfig, RunOptions]) -> None:
    before, _ = _learner(*made)
    after = _step(*made, micro_batch=8)
    start = before.state_dict()
    moved = {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, start[name])}
    assert "centre" in moved
    assert "student.encoder.body.blocks.0.attn.qkv.weight" in moved
    assert "teacher.encoder.body.blocks.0.attn.qkv.weight" in moved
    # In the first epoch the last layer stays as it was drawn.
    assert "student.head.last.weight" not in moved
    later = _step(*made, micro_batch=8, moment=Moment(3, 1, MOMENT.length))
    assert not torch.equal(later.state_dict()["student.head.last.weight"], start["student.head.last.weight"])


def test_the_centre_is_a_moving_average_of_the_teachers_outputs(made: tuple[TrialConfig, RunOptions]) -> None:
    learner, _ = _learner(*made)
    learner.begin(MOMENT)
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 1, 16, 16), generator=random, dtype=torch.uint8)
    outputs: list[torch.Tensor] = []
    learner.teacher.register_forward_hook(lambda _, __, output: outputs.append(output))
    learner.loss(images, learner.draw(4, random))
    learner.after_update()
    assert outputs[0].shape == (8, 32)
    torch.testing.assert_close(learner.centre, 0.1 * outputs[0].mean(dim=0))


def test_local_views_see_resampled_positions(made: tuple[TrialConfig, RunOptions]) -> None:
    """A local view's loss has a gradient that reaches the positions, and the model's own stay as they are."""
    learner, _ = _learner(*made)
    body = learner.student.encoder.body
    own = body.pos_embed
    learner.student(torch.rand(2, 3, 8, 8)).sum().backward()
    assert body.pos_embed is own
    assert own.grad is not None
    assert own.grad.abs().sum() > 0


def test_the_same_output_for_every_image_is_an_alarm(made: tuple[TrialConfig, RunOptions]) -> None:
    learner, _ = _learner(*made)
    told_apart = {"teacher_entropy": 1.0, "teacher_information": 0.5}
    assert learner.alarm(told_apart) is None
    peaked = learner.alarm({"teacher_entropy": 0.0, "teacher_information": 0.0})
    assert peaked is not None
    assert "one prototype; lower centre_momentum" in peaked
    flat = learner.alarm({"teacher_entropy": math.log(32), "teacher_information": 1e-4})
    assert flat is not None
    assert "all prototypes alike; lower first_temperature" in flat
