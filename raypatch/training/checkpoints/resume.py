"""A trial taken up again at its last checkpoint, its files included."""

import logging

import torch
from torch import nn

from raypatch.results import DamagedFileError, EpochRow, TrialPaths, read_epochs, write_epochs
from raypatch.training.checkpoints.checkpoint import (
    Progress,
    load_tensors,
    restore_training_state,
    save_tensors,
    weights_in,
)
from raypatch.trial_fields.length import Length

logger = logging.getLogger(__name__)


def resume(
    paths: TrialPaths,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    length: Length,
    *,
    keeps_best: bool = True,
) -> Progress:
    """Bring a trial to its last checkpoint; where that or what belongs to it is damaged,
    start the trial again.

    length: of the training, which says after which epochs there is a row. keeps_best: whether the weights of the best
    epoch are written on the way; else the last ones are, at the end.
    """
    stored = load_tensors(paths.checkpoint)
    if stored is not None:
        tensors, progress = stored
        rows = _rows_until(paths, progress, length)
        # An earlier version kept the whole model where features are stored now.
        same_model = weights_in(tensors, "model").keys() == model.state_dict().keys()
        complete = same_model and rows is not None
        if complete and (not keeps_best or _has_best_weights(paths, progress, tensors)):
            assert rows is not None, "it is complete"
            restore_training_state(tensors, model, optimizer)
            write_epochs(paths.epochs, rows)
            return progress
    if paths.checkpoint.exists():
        logger.warning("%s cannot be continued: its files are damaged; starting again", paths.folder.name)
    # What is left of a damaged trial would be mixed with the new one's files.
    for leftover in (paths.checkpoint, paths.best_weights, paths.epochs, paths.predictions):
        leftover.unlink(missing_ok=True)
    return Progress()


def _rows_until(paths: TrialPaths, progress: Progress, length: Length) -> list[EpochRow] | None:
    """The rows up to the checkpoint, later ones dropped; None where one is missing or damaged."""
    try:
        rows = [row for row in read_epochs(paths.epochs) if row.epoch <= progress.epoch]
    except DamagedFileError:
        return None
    expected = [epoch for epoch in length.evaluations() if epoch <= progress.epoch]
    complete = [row.epoch for row in rows] == expected
    return rows if complete else None


def _has_best_weights(
    paths: TrialPaths,
    progress: Progress,
    tensors: dict[str, torch.Tensor],
) -> bool:
    """Whether the best weights are there; a kill between the two
    writes left them in the checkpoint alone.
    """
    held = weights_in(tensors, "best")
    if held:
        # Heads that train together keep the best one in the checkpoint until the end.
        at_best = Progress(progress.best_epoch, progress.best_epoch, progress.best_figure)
        save_tensors(paths.best_weights, held, at_best)
        return True
    best = load_tensors(paths.best_weights)
    if best is not None and best[1].epoch == progress.best_epoch:
        return True
    if progress.best_epoch != progress.epoch:
        return False
    # The last epoch was the best one, so that its weights are the checkpoint's.
    save_tensors(paths.best_weights, weights_in(tensors, "model"), progress)
    return True
