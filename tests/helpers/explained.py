"""Tiny models and images, for tests of where models look."""

import torch
from torch import Tensor

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.source import describe
from raypatch.models.prepared import PreparedModel, prepare_model


def tiny_prepared(model: str = "test_vit", **fields: object) -> PreparedModel:
    values = {"dataset": "phantom2d", "model": model, "patch_size": 7, "weights": "random", "precision": "float32"}
    config = TrialConfig.model_validate(values | fields)
    return prepare_model(config, describe(config.dataset), RunOptions(device="cpu"))


def random_images(count: int = 3, dimensions: int = 2, size: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, *(size,) * dimensions), dtype=torch.uint8, generator=generator)
