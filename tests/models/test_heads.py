"""Heads on any model: what they are given, what they cost, and that they train with it and alone."""

import pytest
import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import dataset_info
from raypatch.methods import find_method
from raypatch.models.build import construct
from raypatch.models.flops import model_facts
from raypatch.models.heads import HeadedModel
from raypatch.models.memory import activation_bytes
from raypatch.models.prepared import PreparedModel, prepare_model
from raypatch.training.optim import make_optimizer


def _config(**fields: object) -> TrialConfig:
    values = {"dataset": "phantom2d", "patch_size": 7, "model": "test_vit", "weights": "random"}
    return TrialConfig.model_validate(values | fields)


def _prepared(**fields: object) -> PreparedModel:
    return prepare_model(_config(**fields), dataset_info("phantom2d"), RunOptions(device="cpu"))


@pytest.mark.parametrize("head", ["linear", "mlp", "attention"])
def test_all_of_a_model_trains_with_its_head_and_the_head_alone_in_a_probe(head: str) -> None:
    prepared = _prepared(head=head)
    images = torch.randn(2, 3, 28, 28)
    for method in ("finetune", "linear_probe"):
        find_method(method).prepare(prepared)
        prepared.model.zero_grad(set_to_none=True)
        prepared.model(images).square().sum().backward()
        trained = {value for value in prepared.model.parameters() if value.grad is not None}
        expected = prepared.model if method == "finetune" else prepared.head
        assert trained == set(expected.parameters())


@pytest.mark.parametrize("head", ["mlp", "attention"])
def test_a_head_has_its_own_learning_rate(head: str) -> None:
    config = _config(head=head, head_lr=1e-2)
    prepared = _prepared(head=head)
    groups = make_optimizer(prepared.model, config, prepared.head).param_groups
    assert [group["lr"] for group in groups] == [config.lr, 1e-2]
    assert set(groups[1]["params"]) == set(prepared.head.parameters())


def test_facts_count_the_head_that_is_there() -> None:
    facts = {head: model_facts(_config(head=head), dimensions=2, outputs=4) for head in ("linear", "mlp", "attention")}
    for head, found in facts.items():
        model = construct(_config(head=head), dimensions=2, outputs=4)
        assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert activation_bytes(_config(head=head), found, "float32", checkpointing=False) > 0
    width = 64
    assert facts["mlp"].gflops - facts["linear"].gflops == pytest.approx(2e-9 * width * width)


def test_the_body_is_the_same_under_every_head() -> None:
    linear, mlp = _prepared().model, _prepared(head="mlp").model
    assert isinstance(mlp, HeadedModel)
    for name, value in mlp.body.state_dict().items():
        assert torch.equal(value, linear.state_dict()[name])


def test_attention_pooling_needs_tokens() -> None:
    config = _config(model="own_members:SmallNets", patch_size=None, head="attention")
    with pytest.raises(ValueError, match="head=attention pools tokens, and model own_members:SmallNets has none"):
        construct(config, dimensions=2, outputs=2)
    facts = model_facts(config.model_copy(update={"head": "mlp"}), dimensions=2, outputs=2)
    assert facts.tokens is None
