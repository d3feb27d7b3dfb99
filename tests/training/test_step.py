"""One optimizer step: it follows the customary loop, divides batches without a change, and runs on fixed buffers."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import augment, draw_parameters, normalize
from raypatch.machine.runtime import Precision
from raypatch.models.build import build_model
from raypatch.models.families import find_family
from raypatch.models.prepared import PreparedModel
from raypatch.results import ModelFacts
from raypatch.tasks import find_task
from raypatch.training.optim import make_optimizer, set_learning_rates
from raypatch.training.steps.recorded import Batch, TakeStep
from raypatch.training.steps.step import WARM_UP_STEPS, TrainingStep

MEAN = STD = torch.full((3,), 0.5)


def _config(dimensions: int, **fields: object) -> TrialConfig:
    values = {"dataset": f"phantom{dimensions}d", "image_size": 8, "patch_size": 4, "model": "test_vit", "lr": 1e-3}
    values["batch_size"] = 8
    return TrialConfig.model_validate({"weights": "random", **values, **fields})


def _model(config: TrialConfig, dimensions: int) -> nn.Module:
    return build_model(config, dimensions=dimensions, outputs=2, files={}).model


def _batches(dimensions: int, count: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        images = torch.randint(0, 256, (8, 1, *(8,) * dimensions), dtype=torch.uint8, generator=random)
        labels = (images.float().mean(dim=tuple(range(1, images.ndim))) > 127).long()
        batches.append((images, labels, draw_parameters(8, (8,) * dimensions, random, mirror_safe=True)))
    return batches


def _step(
    model: nn.Module,
    config: TrialConfig,
    device: str = "cpu",
    *,
    precision: Precision = "float32",
    **fields: object,
) -> TrainingStep:
    prepared = PreparedModel(
        model=model,
        family=find_family(config.model),
        facts=ModelFacts(parameters=1, tokens=4, gflops=1.0, gflops_without_attention=1.0),
        mean=MEAN.to(device),
        std=STD.to(device),
        device=torch.device(device),
        precision=precision,
        image_size=config.image_size,
        resize=config.resize,
    )
    settings = {"micro_batch": 8, "fixed_buffers": False} | fields
    loss = find_task("multiclass").loss
    return TrainingStep(prepared, make_optimizer(model, config), loss, config, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_losses_follow_the_customary_loop_in_float32(dimensions: int) -> None:
    """Same batches, same augmentation parameters, 20 steps: within 1e-4 of plain torch with unfused AdamW."""
    config = _config(dimensions)
    model = _model(config, dimensions)
    plain = copy.deepcopy(model)
    step = _step(model, config)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False)
    for images, labels, parameters in _batches(dimensions, 20):
        ours = step(images, labels, parameters).item()
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(normalize(augment(images, parameters), MEAN, STD)), labels)
        loss.backward()
        optimizer.step()
        assert ours == pytest.approx(loss.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_micro_batches_give_the_gradients_of_the_whole_batch(micro_batch: int) -> None:
    """One SGD step shows the gradients as they are; Adam would hide their scale."""
    config = _config(2, optimizer="sgd", lr=0.1)
    whole = _model(config, 2)
    parts = copy.deepcopy(whole)
    batch = _batches(2, 1)[0]
    assert torch.allclose(
        _step(whole, config)(*batch), _step(parts, config, micro_batch=micro_batch)(*batch), rtol=1e-5
    )
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_fixed_buffers_change_no_bit_and_short_batches_pass_them_by() -> None:
    config = _config(2)
    model = _model(config, 2)
    other = copy.deepcopy(model)
    eager, fixed = _step(model, config), _step(other, config, fixed_buffers=True)
    for number, (images, labels, parameters) in enumerate(_batches(2, WARM_UP_STEPS + 4)):
        size = 5 if number == WARM_UP_STEPS + 2 else 8
        batch = images[:size], labels[:size], parameters[:size]
        assert torch.equal(eager(*batch), fixed(*batch).clone())
        for step in (eager, fixed):
            set_learning_rates(step.optimizer, [1e-3 / (number + 1)] * 2)
    assert fixed._recorded is not None
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.gpu
def test_a_recorded_step_agrees_with_an_eager_one() -> None:
    """With a changed learning rate and a short batch in between, bf16, 10 steps."""
    config = _config(2)
    model = _model(config, 2).cuda()
    other = copy.deepcopy(model)
    precision = "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float32"
    eager = _step(model, config, "cuda", precision=precision)
    recorded = _step(other, config, "cuda", precision=precision, fixed_buffers=True)
    for number, batch in enumerate(_batches(2, 10)):
        size = 5 if number == 7 else 8
        images, labels, parameters = (part[:size].cuda() for part in batch)
        one, two = eager(images, labels, parameters).item(), recorded(images, labels, parameters).item()
        assert two == pytest.approx(one, rel=1e-3)
        for step in (eager, recorded):
            set_learning_rates(step.optimizer, [1e-3 / (number + 1)] * 2)


def test_out_of_memory_halves_the_batch_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(2)
    prepared = _step(_model(config, 2), config).prepared
    images = _batches(2, 1)[0][0]
    whole = prepared.logits(images)
    forward, sizes = prepared.model.forward, []

    def limited(inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        if len(inputs) > 3:
            raise torch.OutOfMemoryError
        return forward(inputs)

    monkeypatch.setattr(prepared.model, "forward", limited)
    monkeypatch.setattr("raypatch.models.prepared.evaluation_batch", lambda *_: 6)
    assert torch.allclose(prepared.logits(images), whole, atol=1e-5)
    assert sizes == [6, 3, 3, 2]


def test_bfloat16_stays_near_float32() -> None:
    config = _config(2)
    model = _model(config, 2)
    batch = _batches(2, 1)[0]
    exact = _step(copy.deepcopy(model), config)(*batch).item()
    assert _step(model, config, precision="bfloat16")(*batch).item() == pytest.approx(exact, rel=0.03)


def test_out_of_memory_in_a_recording_leaves_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording computes nothing, so what it leaves in `grad` would be added to the next step."""
    config = _config(2)
    model = _model(config, 2)
    other = copy.deepcopy(model)

    def break_off(take: TakeStep, batch: Batch) -> None:
        for parameter in other.parameters():
            parameter.grad = torch.full_like(parameter, torch.nan)
        raise torch.OutOfMemoryError

    monkeypatch.setattr("raypatch.training.steps.step.RecordedStep", break_off)
    eager, broken = _step(model, config), _step(other, config, fixed_buffers=True)
    for batch in _batches(2, WARM_UP_STEPS + 2):
        assert torch.equal(eager(*batch), broken(*batch))


def test_a_recorded_step_goes_with_its_last_reference() -> None:
    """Else a worker's next trial would find the memory of the last one taken."""
    step = _step(_model(_config(2), 2), _config(2), fixed_buffers=True)
    for batch in _batches(2, WARM_UP_STEPS + 1):
        step(*batch)
    assert step._recorded is not None
    recorded = weakref.ref(step._recorded)
    gc.disable()
    try:
        del step
        assert recorded() is None
    finally:
        gc.enable()


def test_out_of_memory_halves_the_micro_batch_and_takes_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(2, optimizer="sgd", lr=0.1)
    model = _model(config, 2)
    whole, halved = _step(copy.deepcopy(model), config), _step(model, config)
    batch = _batches(2, 1)[0]
    forward = model.forward

    def limited(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return forward(images)

    monkeypatch.setattr(model, "forward", limited)
    assert torch.allclose(halved(*batch), whole(*batch), rtol=1e-5)
    assert halved.micro_batch == 2
