"""Which of several trainings is best, by the validation score that the trial's `selection` names;
and which of several levels, by the validation score that the study's answer is about.
"""

import math
from collections.abc import Iterable, Mapping

from raypatch.config import TrialConfig
from raypatch.results import TrialResult
from raypatch.tasks import find_metric


def lower_is_better(selection: str, task: str | None = None) -> bool:
    """Whether a score that `selection` names (val_loss, val_auc) is better the lower it is.

    task: TrialConfig.task, for a metric that only a task of one's own
    has. Raises ValueError for an unknown metric.
    """
    return find_metric(selection.removeprefix("val_"), task).lower_is_better


def goodness(selection: str, score: float | None, task: str | None = None) -> float:
    """Return the score turned so that larger is better;
    minus infinity for one that is absent or NaN.
    """
    if score is None or math.isnan(score):
        return -math.inf
    return -score if lower_is_better(selection, task) else score


def selection_score(config: TrialConfig, result: TrialResult) -> float | None:
    """The selection score of the best epoch of a trial that ran through, on validation;
    None if there is none.
    """
    if result.status != "ok" or result.val is None:
        return None
    score = result.val.get(config.selection_metric, math.nan)
    return None if math.isnan(score) else score


def select_best(scored: Iterable[tuple[TrialConfig, float | None]]) -> TrialConfig | None:
    """Return the trial with the best selection score, the first of equals;
    None where no score is defined.
    """
    best, best_goodness = None, -math.inf
    for config, score in scored:
        this_goodness = goodness(config.selection, score, config.task)
        # Greater, not at least as great: of equals the first one stays.
        if this_goodness > best_goodness:
            best, best_goodness = config, this_goodness
    return best


def prefer_level(scores: Mapping[str, float], costs: Mapping[str, float], *, lower_is_better: bool) -> str:
    """Return the level of the best mean validation score, the cheaper of equals, then the first.

    scores: means over the seeds; a score that is NaN comes last. costs: GFLOPs by level, NaN for unknown.
    """

    def place(level: str) -> tuple[bool, float, float]:
        score, cost = scores[level], costs[level]
        # NaN is neither above nor below anything: it must not be compared.
        is_undefined = math.isnan(score)
        turned = score if lower_is_better else -score
        return is_undefined, 0.0 if is_undefined else turned, math.inf if math.isnan(cost) else cost

    return min(scores, key=place)
