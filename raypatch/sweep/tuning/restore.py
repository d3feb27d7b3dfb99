"""A search taken up again: its groups are made anew from the trial folders.

So it does not matter how the last session ended.
"""

import contextlib
from collections.abc import Sequence

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from raypatch.config import TrialConfig
from raypatch.results import (
    DamagedFileError,
    SweepPaths,
    SweepRecord,
    read_config,
    read_epochs,
    read_sweep,
)
from raypatch.search_settings import Search
from raypatch.storage.files import hold_lock
from raypatch.sweep.guard import record_pruned
from raypatch.sweep.plan import finished_result
from raypatch.sweep.session import Session
from raypatch.sweep.tuning.group import SearchGroup
from raypatch.sweep.tuning.state import SearchState


def restore_search(record: SweepRecord, session: Session) -> tuple[SearchState, list[TrialConfig]]:
    """Return a search as it stands on disk, and the trials that are drawn and still to run, in order.

    The caller holds the run folder's lock.
    """
    assert record.search is not None
    known = known_trials(record.search, session.paths)
    state = SearchState(record, _empty_groups(record.search, session.paths))
    for config in known:
        index = record.search.group_of(config)
        assert index is not None, "known_trials gives no others"
        group = state.groups[index]
        # With fewer samples than last time, the last ones are left out.
        if group.undrawn:
            group.enter(config)
            state.add(group, config)
    waiting = _tell_finished(state, session)
    # Finished trials are told first: an unfinished one is judged against all of them.
    unfinished = []
    for config in waiting:
        if not _is_over(state, session.paths, config):
            unfinished.append(config)
    return state, unfinished


def known_trials(search: Search, paths: SweepPaths) -> list[TrialConfig]:
    """Return the trials of this search that earlier sessions drew, in their order.

    Folders that sweep.json lacks come last.
    """
    listed = read_sweep(paths.record).trials if paths.record.exists() else ()
    known = {config.trial_id(): config for config in listed}
    unlisted = []
    for trial in paths.trial_folders():
        if trial.folder.name not in known and trial.config.exists():
            unlisted.append(trial.config)
    # Their numbers are not known: the time at which each was begun gives their order.
    for path in sorted(unlisted, key=lambda path: path.stat().st_mtime_ns):
        with contextlib.suppress(DamagedFileError):
            known.setdefault(path.parent.name, read_config(path))
    return [config for config in known.values() if search.group_of(config) is not None]


def _empty_groups(search: Search, paths: SweepPaths) -> Sequence[SearchGroup]:
    """The groups without trials, on a new journal, which optuna-dashboard can show."""
    for leftover in paths.folder.glob(f"{paths.studies.name}*"):
        leftover.unlink()
    storage = JournalStorage(JournalFileBackend(str(paths.studies)))
    groups = []
    for base, label in zip(search.groups, search.labels, strict=True):
        groups.append(SearchGroup(base, label, search.settings, storage))
    return groups


def _tell_finished(state: SearchState, session: Session) -> list[TrialConfig]:
    """Tell the groups of the trials that are over; return the others."""
    waiting = []
    for config in state.record.trials:
        result = finished_result(session.paths, config.trial_id())
        if result is None or (session.retry_failed and result.status == "failed"):
            waiting.append(config)
        else:
            _replay(state, session.paths, config)
            state.group_of(config.trial_id()).tell(result)
    return waiting


def _is_over(state: SearchState, paths: SweepPaths, config: TrialConfig) -> bool:
    """Replay an unfinished trial; say whether it is over after all.

    It is where its last epoch was to be its end, and the session was killed before it said so.
    """
    trial = paths.trial(config.trial_id())
    group = state.group_of(config.trial_id())
    # A worker of a killed session may still live for seconds: its lock is waited for.
    unused = contextlib.nullcontext()
    with hold_lock(trial.lock, wait=True) if trial.folder.exists() else unused:
        result = finished_result(paths, config.trial_id())
        hopeless = _replay(state, paths, config)
        if result is not None and result.status != "failed":
            group.tell(result)
            return True
        if hopeless:
            group.tell(record_pruned(config, trial))
        return hopeless


def _replay(state: SearchState, paths: SweepPaths, config: TrialConfig) -> bool:
    """Report a trial's epochs to its group; return the judgement after the last one."""
    try:
        rows = read_epochs(paths.trial(config.trial_id()).epochs)
    except DamagedFileError:
        rows = []
    hopeless = False
    for row in rows:
        hopeless = state.group_of(config.trial_id()).report(config.trial_id(), row)
    return hopeless
