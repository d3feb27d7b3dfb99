"""A finished run used: its best trials chosen (choose), new images predicted (images),
a trial exported (export).
"""

from raypatch.predict.choose import (
    FinishedTrial,
    FinishedTrials,
    choose_members,
    describe_choice,
    find_trials,
    seeds_of,
)
from raypatch.predict.export import export_trial, load_exported, timm_loads
from raypatch.predict.images import Prediction, image_table, patient_table, predict, predict_member
from raypatch.predict.mask_truth import read_mask_truth
from raypatch.predict.masks import PredictedMasks, has_masks, predict_masks, write_masks
from raypatch.predict.source import UNKNOWN, Source, match_truth, open_source
from raypatch.predict.weights import load_model

__all__ = [
    "UNKNOWN",
    "FinishedTrial",
    "FinishedTrials",
    "PredictedMasks",
    "Prediction",
    "Source",
    "choose_members",
    "describe_choice",
    "export_trial",
    "find_trials",
    "has_masks",
    "image_table",
    "load_exported",
    "load_model",
    "match_truth",
    "open_source",
    "patient_table",
    "predict",
    "predict_masks",
    "predict_member",
    "read_mask_truth",
    "seeds_of",
    "timm_loads",
    "write_masks",
]
