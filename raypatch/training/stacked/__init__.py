"""Heads of several trials, trained together on features that they share."""

from raypatch.training.stacked.keys import can_stack, stack_key
from raypatch.training.stacked.stack import Stack
from raypatch.training.stacked.train import train_stacked

__all__ = ["Stack", "can_stack", "stack_key", "train_stacked"]
