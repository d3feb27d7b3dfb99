"""How a trial's progress goes on with each evaluation, and when it is over before its length."""

from raypatch.config import TrialConfig
from raypatch.results import EpochRow
from raypatch.selection import goodness
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.optim import is_lowest
from raypatch.trial_fields.length import Length


def advance(progress: Progress, row: EpochRow, config: TrialConfig) -> Progress:
    """The progress after `row`: the best epoch is the first with the
    best selection score; NaN never wins.
    """
    score = row.val[config.selection_metric]
    best_epoch, best = progress.best_epoch, progress.best_figure
    is_better = _goodness(config, score) > _goodness(config, best)
    if best is None or is_better:
        best_epoch, best = row.epoch, score
    stalled, reductions = progress.stalled, progress.reductions
    # While it warms up, a score that stalls says nothing about the learning rate.
    is_warm = row.epoch >= config.warmup_epochs and row.step >= config.warmup_steps
    if "plateau" in config.schedules and is_warm:
        stalled = 0 if is_better else stalled + 1
        if stalled > config.plateau_patience and not is_lowest(config, reductions):
            stalled, reductions = 0, reductions + 1
    return Progress(row.epoch, best_epoch, best, stalled, reductions)


def is_over(progress: Progress, config: TrialConfig, length: Length) -> bool:
    """Whether training ends here: at its length, out of patience, or on a plateau of the lowest learning rate."""
    if progress.epoch >= length.epochs:
        return True
    if config.patience is not None:
        evaluations_since_best = (progress.epoch - progress.best_epoch) // length.every
        if evaluations_since_best >= config.patience:
            return True
    # A plateau of a higher rate has lowered it, and begun to count again.
    return "plateau" in config.schedules and progress.stalled > config.plateau_patience


def _goodness(config: TrialConfig, score: float | None) -> float:
    return goodness(config.selection, score, config.task)
