"""How a trial's validation scores are worded: the loss, and the score that selects."""

from raypatch.config import TrialConfig
from raypatch.results import Scores


def other_selection(config: TrialConfig) -> str | None:
    """The metric that chooses the trial's weights; None for the loss, which is shown anyway."""
    return None if config.selection_metric == "loss" else config.selection_metric


def describe_scores(config: TrialConfig, scores: Scores) -> str:
    """Validation scores in a line: `val loss 0.4210 auc 0.912` where the AUC selects.

    Where the loss does, it stands alone. Every task has one.
    """
    text = f"val loss {scores['loss']:.4f}"
    metric = other_selection(config)
    if metric is not None and metric in scores:
        text += f" {metric.replace('_', ' ')} {scores[metric]:.3f}"
    return text
