"""Checkpoints written beside the training: one thread writes while the next epoch is computed."""

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch
from torch import nn

from raypatch.results import TrialPaths
from raypatch.training.checkpoints.checkpoint import Progress, Tensors, save_tensors, training_state, weights_in

CHECKPOINT_SECONDS = 60.0
"""How much work of short epochs a kill may cost; of longer ones it is at most one."""


class CheckpointWriter:
    """Writes last.ckpt and best.safetensors of a trial, after the first and the last evaluation and as often in between
    as it takes to lose no more than an epoch or CHECKPOINT_SECONDS, whichever is more.

    Used as a context: at its end all is on disk. A failed write is raised by the next `wait`, or there.
    """

    def __init__(self, paths: TrialPaths) -> None:
        self._paths = paths
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        # Weights of the best epoch that are in no file yet.
        self._best: Tensors = {}
        self._saved = -math.inf
        self._evaluated = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What was begun is finished, whatever ends the training: the folder's lock is free after this.
        self._thread.shutdown(wait=True)
        self.wait()

    def wait(self) -> None:
        """Return when nothing is being written; raise what went wrong."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def keep(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, *, is_over: bool) -> None:
        """Take note of the state after an evaluation, and begin to write it if it is time.

        The state is copied first, so that training may go on at once.
        """
        self.wait()
        now = time.monotonic()
        epoch_seconds = now - self._evaluated
        self._evaluated = now
        # The next chance comes after another epoch.
        is_due = is_over or now + epoch_seconds - self._saved > CHECKPOINT_SECONDS
        is_best = progress.best_epoch == progress.epoch
        if not is_due:
            if is_best:
                self._best = _copied(model.state_dict())
            return
        self._saved = now
        tensors = _copied(training_state(model, optimizer))
        best, self._best = self._best, {}
        if is_best:
            best = weights_in(tensors, "model")
        else:
            # As long as they are in no file of their own, the checkpoint holds them.
            tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        self._writing = self._thread.submit(self._write, tensors, best, progress)

    def _write(self, tensors: Tensors, best: Tensors, progress: Progress) -> None:
        save_tensors(self._paths.checkpoint, tensors, progress)
        # After the checkpoint, which can restore the best weights: see resume.
        if best:
            at_best = Progress(progress.best_epoch, progress.best_epoch, progress.best_figure)
            save_tensors(self._paths.best_weights, best, at_best)


def _copied(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
