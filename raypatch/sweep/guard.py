"""One trial under guard: its lock, its log, and what is written when it fails.

All executors run trials this way.
"""

import contextlib
import errno
import logging
import os
import platform
import statistics
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.runtime import provenance
from raypatch.results import (
    EpochRow,
    SweepPaths,
    TrialPaths,
    TrialResult,
    read_epochs,
    write_config,
    write_json,
)
from raypatch.storage.files import hold_lock, remove_leftovers
from raypatch.sweep.plan import finished_result
from raypatch.sweep.watch.tensorboard import EventFile
from raypatch.training.checkpoint import Progress
from raypatch.training.loop import Interrupted, TrialError
from raypatch.training.progress import advance
from raypatch.trial import train_trial


class SweepHaltedError(RuntimeError):
    """No trial can go on until the user acts; the message says what to do."""


class Pruned(Exception):  # noqa: N818 - no error: a search has seen enough
    """Raised by on_epoch: the search gives the trial up."""


def run_guarded(
    config: TrialConfig,
    sweep: SweepPaths,
    options: RunOptions,
    *,
    on_epoch: Callable[[EpochRow], object],
    should_stop: Callable[[], bool],
) -> TrialResult:
    """Run a trial unless somebody finished it meanwhile.

    A failure that no retry can mend is written as the result; any other goes to the trial's log
    and is raised. on_epoch may raise Pruned. Raises Interrupted when asked to stop,
    SweepHaltedError when the disk is full.
    """
    paths = sweep.trial(config.trial_id())
    logger = logging.getLogger("raypatch")
    # A worker of a killed session may still hold the folder for seconds: its end is waited for.
    with _folder_of(paths), hold_lock(paths.lock, wait=True), log_to(paths):
        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        logger.info("process %d on %s, visible GPUs: %s", os.getpid(), platform.node(), cards)
        # Only under the lock it is sure that nobody finishes it at this moment.
        result = finished_result(sweep, config.trial_id())
        if result is not None and result.status != "failed":
            return result
        try:
            paths.result.unlink(missing_ok=True)
            remove_leftovers(paths.folder)
            write_config(paths.config, config)
            with contextlib.closing(EventFile(paths)) as events:

                def each_epoch(row: EpochRow) -> None:
                    # Events first: on_epoch may end the trial.
                    events.epoch(row)
                    on_epoch(row)

                return train_trial(config, paths, options, on_epoch=each_epoch, should_stop=should_stop)
        except Pruned:
            return record_pruned(config, paths)
        except (TrialError, ValueError) as error:
            logger.exception("trial failed")
            return record_failure(config, paths, error)
        except Interrupted:
            logger.info("stopped as asked; it can go on from its checkpoint")
            raise
        except Exception as error:
            if not _is_full_disk(error):
                logger.exception("trial crashed")
            raise


@contextlib.contextmanager
def _folder_of(paths: TrialPaths) -> Iterator[None]:
    """Make the trial's folder, and halt the sweep when its disk is full."""
    with halting_on_full_disk(paths.folder):
        paths.folder.mkdir(parents=True, exist_ok=True)
        yield


@contextlib.contextmanager
def halting_on_full_disk(folder: Path) -> Iterator[None]:
    """Turn a full disk anywhere inside into SweepHaltedError."""
    try:
        yield
    except OSError as error:
        if _is_full_disk(error):
            raise SweepHaltedError(f"no space left in {folder}; make space") from error
        raise


def _is_full_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def record_failure(config: TrialConfig, paths: TrialPaths, error: BaseException | str) -> TrialResult:
    """Write a `failed` result with the traceback."""
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    result = TrialResult(trial_id=config.trial_id(), status="failed", error=text, provenance=provenance())
    # A worker may have died before it made its folder.
    paths.folder.mkdir(parents=True, exist_ok=True)
    write_json(paths.result, result)
    return result


def record_pruned(config: TrialConfig, paths: TrialPaths) -> TrialResult:
    """Write a `pruned` result, with the validation scores of the best epoch, and drop the weights.

    Nobody else may write to the folder now: the caller holds its lock, or its holder waits in a
    report.
    """
    rows = read_epochs(paths.epochs)
    progress = Progress()
    for row in rows:
        progress = advance(progress, row, config)
    (best,) = [row for row in rows if row.epoch == progress.best_epoch]
    result = TrialResult(
        trial_id=config.trial_id(),
        status="pruned",
        epochs=rows[-1].epoch,
        best_epoch=best.epoch,
        val=best.val,
        train_seconds=sum(row.seconds for row in rows),
        images_per_second=statistics.median(row.images_per_second for row in rows),
        provenance=provenance(),
    )
    write_json(paths.result, result)
    for weights in (paths.checkpoint, paths.best_weights):
        weights.unlink(missing_ok=True)
    return result


@contextlib.contextmanager
def log_to(paths: TrialPaths) -> Iterator[None]:
    """Send raypatch's log, and Python's warnings, to the trial's train.log alone."""
    handler = logging.FileHandler(paths.log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger("raypatch"), logging.getLogger("py.warnings")]
    logging.captureWarnings(capture=True)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        # Else they would also reach the terminal, into the middle of the display.
        logger.propagate = False
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()
