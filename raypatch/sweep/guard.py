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
from collections.abc import Callable, Iterator, Sequence
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
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.loop import Interrupted, TrialError
from raypatch.training.progress import advance
from raypatch.trial import train_group, train_trial


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
        _log_start()
        # Only under the lock it is sure that nobody finishes it at this moment.
        result = finished_result(sweep, config.trial_id())
        if result is not None and result.status != "failed":
            return result
        try:
            _make_ready(config, paths)
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


def run_group_guarded(
    configs: Sequence[TrialConfig],
    sweep: SweepPaths,
    options: RunOptions,
    *,
    on_epoch: Callable[[str, EpochRow], object],
    should_stop: Callable[[], bool],
) -> Iterator[TrialResult]:
    """Run trials together unless somebody finished them meanwhile; give the result of each when it is over.

    Each has its lock, its log, which also holds what is said of the group, and its failure, as in
    `run_guarded`. Raises as that does; trials that were over by then stay so.
    """
    with contextlib.ExitStack() as stack:
        todo = []
        # By name: two workers with some trials in common would else wait for each other.
        for config in sorted(configs, key=lambda config: config.trial_id()):
            paths = sweep.trial(config.trial_id())
            stack.enter_context(_folder_of(paths))
            stack.enter_context(hold_lock(paths.lock, wait=True))
            result = finished_result(sweep, config.trial_id())
            if result is not None and result.status != "failed":
                yield result
            else:
                todo.append(config)
        if not todo:
            return
        events = {}
        for config in todo:
            paths = sweep.trial(config.trial_id())
            stack.enter_context(log_to(paths))
            _make_ready(config, paths)
            events[config.trial_id()] = stack.enter_context(contextlib.closing(EventFile(paths)))

        def each_epoch(trial_id: str, row: EpochRow) -> None:
            events[trial_id].epoch(row)
            on_epoch(trial_id, row)

        _log_start()
        yield from _train_group(todo, sweep, options, each_epoch, should_stop)


def _train_group(
    configs: Sequence[TrialConfig],
    sweep: SweepPaths,
    options: RunOptions,
    on_epoch: Callable[[str, EpochRow], object],
    should_stop: Callable[[], bool],
) -> Iterator[TrialResult]:
    """Train the trials of a group, and write what no retry can mend as their result."""
    logger = logging.getLogger("raypatch")
    paths = {config.trial_id(): sweep.trial(config.trial_id()) for config in configs}
    try:
        for config, outcome in train_group(configs, paths, options, on_epoch=on_epoch, should_stop=should_stop):
            trial_id = config.trial_id()
            if isinstance(outcome, TrialError):
                logger.error("trial %s failed: %s", trial_id, outcome)
                yield record_failure(config, paths[trial_id], outcome)
            else:
                yield outcome
    except ValueError as error:
        # Wrong input is that of all: they differ in their numbers alone.
        logger.exception("trials failed")
        for config in configs:
            if finished_result(sweep, config.trial_id()) is None:
                yield record_failure(config, paths[config.trial_id()], error)
    except Interrupted:
        logger.info("stopped as asked; they can go on from their checkpoints")
        raise
    except Exception as error:
        if not _is_full_disk(error):
            logger.exception("trials crashed")
        raise


def _log_start() -> None:
    cards = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    where = os.getpid(), platform.node(), cards
    logging.getLogger("raypatch").info("process %d on %s, visible GPUs: %s", *where)


def _make_ready(config: TrialConfig, paths: TrialPaths) -> None:
    """Clear a trial's folder of what must not stay, and write what it is."""
    paths.result.unlink(missing_ok=True)
    remove_leftovers(paths.folder)
    write_config(paths.config, config)


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
