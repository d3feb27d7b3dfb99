"""How a trial is worded while its sweep runs: its validation scores, and how it ended."""

from raypatch.config import TrialConfig
from raypatch.results import Scores, TrialResult
from raypatch.words import duration


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


def is_at_chance(result: TrialResult) -> bool:
    """Whether a trial does no better on validation than one that says the most frequent class of every image."""
    if result.dataset is None or result.val is None:
        return False
    # Balanced accuracy of such a model, see raypatch.tasks.majority: each label is a question with two answers.
    answers = 2 if result.dataset.task == "multilabel" else len(result.dataset.classes)
    return bool(result.val.get("balanced_accuracy", 1.0) <= 1 / answers)


def describe_result(config: TrialConfig, result: TrialResult, varied: str = "") -> str:
    """A finished trial in one line: its id and what else varies, its validation scores or its error, and seconds.

    Scores of the test set are left to the report, so that nobody chooses by them.
    """
    name = f"{result.trial_id} {varied}".rstrip()
    if result.status == "failed":
        # The last line of a traceback says what went wrong.
        error = (result.error or "unknown").strip()
        return f"{name} FAILED: {error.splitlines()[-1]}"
    scores = describe_scores(config, result.val) if result.val else ""
    if is_at_chance(result):
        scores += ", no better than the most frequent class"
    if result.status == "pruned":
        return f"{name} pruned after {result.epochs} epochs, {scores}"
    return f"{name} {scores} in {duration(result.train_seconds)}"
