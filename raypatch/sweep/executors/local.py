"""The in-process executor: one trial after another, no Ray. For debugging, small sweeps and as Ray's yardstick."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, SweepPaths
from raypatch.sweep.guard import Pruned, SweepHaltedError, record_failure, run_guarded
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.watch.progress import Listener
from raypatch.training.loop import Interrupted

if TYPE_CHECKING:
    from raypatch.sweep.tuning.search import SearchRun


def run_locally(
    todo: Sequence[TrialConfig],
    paths: SweepPaths,
    options: RunOptions,
    *,
    retries: int,
    listener: Listener,
    stop: StopRequest,
    search: "SearchRun | None" = None,
) -> None:
    """Run the trials in this process, in order. A crashed one is tried `retries` times more from its checkpoint.

    search: draws the trials in place of `todo` and gives up those without prospect.
    """

    def on_epoch(trial_id: str, row: EpochRow) -> None:
        listener.epoch(trial_id, row)
        if search and search.should_prune(trial_id, row):
            raise Pruned

    for config in search.trials(stop) if search else todo:
        trial_id = config.trial_id()
        for attempt in range(retries + 1):
            if stop.is_set():
                return
            listener.started(trial_id)
            try:
                result = run_guarded(
                    config,
                    paths,
                    options,
                    on_epoch=functools.partial(on_epoch, trial_id),
                    should_stop=stop.is_set,
                )
            except Interrupted:
                listener.lost(trial_id)
            except SweepHaltedError as error:
                listener.lost(trial_id)
                stop.set(str(error))
            except Exception as error:
                if attempt < retries:
                    continue
                result = record_failure(config, paths.trial(trial_id), error)
                listener.finished(result)
            else:
                listener.finished(result)
            break
