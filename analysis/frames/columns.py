"""What the columns of the data frames mean: of a trial, its scores, its level, what is missing."""

from collections.abc import Iterable

import pandas as pd

from raypatch.config import TrialConfig

RESULT_COLUMNS = {
    "run": "name of the run folder",
    "trial_id": "the trial's identity, the same in every run",
    "folder": "path of the trial folder",
    "status": "ok, pruned (stopped early by a search) or failed",
    "dataset_label": "the dataset's name for people: an own file's without its digest, unless two share it",
    "task": "what was learned: binary, multiclass, ordinal, multilabel or another task's name",
    "dimensions": "2 (images) or 3 (volumes)",
    "channels": "1 (grey) or 3 (RGB)",
    "classes": "class names in label order, a tuple",
    "balance": "images of each class in train, val and test, a tuple of tuples; empty in older files",
    "patients": "patients in train, val and test, a tuple; None where the data does not say, empty in older files",
    "train_images": "images trained on",
    "val_images": "images in the validation split",
    "test_images": "images in the test split",
}
COST_COLUMNS = {
    "parameters": "weights, count",
    "tokens": "patches per image, without the class token; NaN for a model without tokens",
    "gflops": "2 x multiply-accumulates per image and forward pass, 1e9",
    "gflops_without_attention": "the same without the attention products, as most papers count",
    "epochs_done": "epochs completed",
    "best_epoch": "epoch of the kept weights, counted from 1",
    "train_seconds": "all epochs, validation included, seconds",
    "images_per_second": "training, median over the epochs",
    "peak_memory_gb": "of the device, of the process on a CPU, 1e9 bytes",
    "precision_used": "the precision that auto became",
    "device": "what it ran on",
    "error": "last line of a failed trial's traceback",
}
LEVEL_COLUMNS = {
    "level": "the trial's level of the factor that is compared",
    "level_rank": "place of that level, from 0",
    "kind": "single: one trained model; ensemble: several",
}
CONFIG_COLUMNS = {
    name: info.description or "" for name, info in TrialConfig.model_fields.items() if name not in RESULT_COLUMNS
}
"""The fields of a trial but its task, which the results name as it was found."""

MISSING_COLUMNS = ("run", "trial_id", "dataset", "dataset_label", "level", "seed", "state")
EPOCH_KEYS = ("run", "trial_id", "dataset", "level", "seed")


def score_column(split: str, metric: str) -> str:
    """Return the column of a score: test_auc. split: val or test, at the epoch of the kept weights."""
    return f"{split}_{metric}"


def score_columns(metrics: Iterable[str]) -> dict[str, str]:
    """Return the columns of these metrics on both splits, with their meaning."""
    names = list(metrics)
    columns = {}
    for split, where in (("val", "the validation split"), ("test", "the test split")):
        for metric in names:
            columns[score_column(split, metric)] = f"{metric} on {where}, best epoch; NaN where there is none"
    return columns


def trial_columns(metrics: Iterable[str]) -> dict[str, str]:
    """Return all columns of a frame of trials that have these metrics, with their meaning."""
    return RESULT_COLUMNS | score_columns(metrics) | COST_COLUMNS | LEVEL_COLUMNS | CONFIG_COLUMNS


def describe_columns(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what each column of `load_trials` means: column, meaning. Scores run 0 to 1, losses are nats per image."""
    metrics = []
    for name in map(str, trials):
        # test_images is a count, no score.
        if name.startswith("test_") and name not in RESULT_COLUMNS:
            metrics.append(name.removeprefix("test_"))
    known = trial_columns(metrics)
    rows = []
    for name in map(str, trials):
        # A setting's column has the name of a factor that is no field.
        rows.append((name, known.get(name, f"level of {name}")))
    return pd.DataFrame(rows, columns=["column", "meaning"])
