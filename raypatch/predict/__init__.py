"""A finished run used: its best trials chosen (choose), new images predicted (images),
a trial exported (export).
"""

from raypatch.predict.choose import FinishedTrial, FinishedTrials, choose_members, describe_choice, find_trials
from raypatch.predict.export import export_trial, load_exported
from raypatch.predict.images import predict, predict_member
from raypatch.predict.weights import load_model

__all__ = [
    "FinishedTrial",
    "FinishedTrials",
    "choose_members",
    "describe_choice",
    "export_trial",
    "find_trials",
    "load_exported",
    "load_model",
    "predict",
    "predict_member",
]
