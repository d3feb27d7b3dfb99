"""Trials that start from the weights of another: handed out once it is over, failed when it has failed."""

from collections.abc import Iterable, Iterator

from raypatch.config import TrialConfig
from raypatch.results import SweepPaths, TrialResult
from raypatch.sweep.guard import record_failure
from raypatch.sweep.plan import finished_result
from raypatch.sweep.session import Group, Listener


def ready_groups(groups: Iterable[Group], paths: SweepPaths, listener: Listener) -> Iterator[Group | None]:
    """Yield groups about in order, each once the trials whose weights it starts from are over; None to wait for them.

    What is over stands in the trials' folders, also when another process or node wrote it. A failed one fails
    those that start from it, which the listener is told of. Groups of a search, drawn one by one, wait for nobody.
    """
    waiting: list[Group] = []
    coming = iter(groups)
    while True:
        ready = _first_ready(waiting, paths, listener)
        if ready is not None:
            yield ready
            continue
        group = next(coming, None)
        if group is not None:
            waiting.append(group)
        elif waiting:
            yield None
        else:
            return


def drop_stale_failures(todo: Iterable[TrialConfig], paths: SweepPaths) -> None:
    """Remove the results of failed trials that run again: those that wait for them must not take them for new."""
    for config in todo:
        if config.makes_weights:
            paths.trial(config.trial_id()).result.unlink(missing_ok=True)


def _first_ready(waiting: list[Group], paths: SweepPaths, listener: Listener) -> Group | None:
    """Take the first group out of those that wait whose parent is over; those of a failed one fail on the way."""
    results: dict[str, TrialResult | None] = {}
    for group in list(waiting):
        # Those of a group share what they start from.
        parent = group[0].parent
        if parent is not None and parent not in results:
            results[parent] = finished_result(paths, parent)
        result = None if parent is None else results[parent]
        if parent is not None and result is None:
            continue
        waiting.remove(group)
        if result is None or result.status == "ok":
            return group
        for config in group:
            listener.finished(_fail(config, result, paths))
    return None


def _fail(config: TrialConfig, parent: TrialResult, paths: SweepPaths) -> TrialResult:
    text = (
        f"trial {parent.trial_id}, whose weights this one starts from, has failed: see its train.log; mend that, and"
        " run both again with --retry-failed"
    )
    return record_failure(config, paths.trial(config.trial_id()), text)
