"""Whole models of several trials, trained together: the same steps as alone, each product one of all."""

from raypatch.training.stacked_models.keys import models_key
from raypatch.training.stacked_models.rows import StackedModels
from raypatch.training.stacked_models.step import make_stacked_step
from raypatch.training.stacked_models.train import train_models

__all__ = ["StackedModels", "make_stacked_step", "models_key", "train_models"]
