"""The in-process executor: one trial after another, no Ray. For debugging, small sweeps and as Ray's yardstick."""

from collections.abc import Sequence

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import SweepPaths
from raypatch.sweep.guard import SweepHaltedError, record_failure, run_guarded
from raypatch.sweep.progress import Listener
from raypatch.sweep.stop import StopRequest
from raypatch.train import Interrupted


def run_locally(
    todo: Sequence[TrialConfig],
    paths: SweepPaths,
    options: RunOptions,
    *,
    retries: int,
    listener: Listener,
    stop: StopRequest,
) -> None:
    """Run the trials in this process, in order. A crashed one is tried `retries` times more from its checkpoint."""
    for config in todo:
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
                    on_epoch=lambda row, trial_id=trial_id: listener.epoch(trial_id, row),
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
