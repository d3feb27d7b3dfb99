"""Methods: what trains, in which mode, and that an unknown one is refused with a way out."""

import pytest
import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import dataset_info
from raypatch.methods import check_method, find_method
from raypatch.models.prepared import PreparedModel, prepare_model


def _prepared() -> PreparedModel:
    config = TrialConfig(dataset="phantom2d", patch_size=14, model="test_vit", weights="random")
    return prepare_model(config, dataset_info("phantom2d"), RunOptions(device="cpu"))


def test_linear_probe_trains_the_head_alone_and_keeps_the_backbone_still() -> None:
    prepared, method = _prepared(), find_method("linear_probe")
    method.prepare(prepared)
    model = prepared.model
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {"head.weight", "head.bias"}
    method.set_training_mode(prepared)
    assert prepared.head.training
    assert [name for name, module in model.named_modules() if module.training] == ["head"]
    model(torch.randn(2, 3, 28, 28)).sum().backward()
    gradients = {name for name, value in model.named_parameters() if value.grad is not None}
    assert gradients == {"head.weight", "head.bias"}


def test_finetuning_trains_everything() -> None:
    prepared, method = _prepared(), find_method("finetune")
    method.prepare(prepared)
    prepared.model.eval()
    method.set_training_mode(prepared)
    assert all(module.training for module in prepared.model.modules())
    assert all(value.requires_grad for value in prepared.model.parameters())


def test_unknown_method_is_refused_with_near_names() -> None:
    check_method("finetune")
    with pytest.raises(ValueError, match="unknown method 'linear': use linear_probe, or module:NAME"):
        check_method("linear")
