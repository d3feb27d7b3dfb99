"""A search while it runs: draws trials group by group, judges them, and stands on the trial folders alone."""

import contextlib
from collections.abc import Iterator, Sequence

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from raypatch.config import RunOptions, TrialConfig
from raypatch.files import hold_lock
from raypatch.results import (
    DamagedFileError,
    EpochRow,
    SweepPaths,
    SweepRecord,
    TrialResult,
    read_config,
    read_epochs,
    read_sweep,
    write_json,
)
from raypatch.search_settings import Search
from raypatch.selection import goodness, selection_score
from raypatch.sweep.guard import record_pruned
from raypatch.sweep.plan import finished_result, rough_seconds
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.tuning.group import GroupStudy
from raypatch.sweep.tuning.recipes import describe_values
from raypatch.sweep.watch.progress import SweepProgress


class SearchRun:
    """A search and its Listener: it tells the studies how trials go and passes everything on to the display.

    Every draw stands in sweep.json before it runs. At the start the studies, their rungs included, are made anew
    from the trial folders, so that nothing hangs on how the last session ended. The caller holds the run folder's
    lock.
    """

    def __init__(
        self, record: SweepRecord, paths: SweepPaths, options: RunOptions, *, retry_failed: bool = False
    ) -> None:
        assert record.search is not None
        self.search, self.paths, self.options = record.search, paths, options
        self.display: SweepProgress | None = None
        known = known_trials(self.search, paths)
        self.record = record.model_copy(update={"trials": ()})
        for leftover in paths.folder.glob(f"{paths.studies.name}*"):
            leftover.unlink()
        storage = JournalStorage(JournalFileBackend(str(paths.studies)))
        self.groups = [
            GroupStudy(base, label, self.search.settings, storage)
            for base, label in zip(self.search.groups, self.search.labels, strict=True)
        ]
        self._group_of: dict[str, GroupStudy] = {}
        self._best: dict[str, tuple[float, str]] = {}
        self.unfinished = self._restore(known, retry_failed=retry_failed)

    @property
    def undrawn(self) -> list[TrialConfig]:
        """A stand-in for each sample that is still to be drawn."""
        return [group.base for group in self.groups for _ in range(group.undrawn)]

    def show_on(self, display: SweepProgress) -> None:
        """Pass everything on to `display` from now on; tell it what is to come and the best so far."""
        self.display = display
        display.to_draw = [rough_seconds(config, self.options) for config in self.undrawn]
        for label, (_, text) in self._best.items():
            display.note(label, text)

    def trials(self, stop: StopRequest) -> Iterator[TrialConfig]:
        """Yield what to run next: what was begun first, then draws, from the group with the fewest, costliest first."""
        yield from self.unfinished
        groups = sorted(self.groups, key=lambda group: -rough_seconds(group.base, self.options))
        while not stop.is_set():
            group = min(groups, key=lambda group: -group.undrawn)
            if not group.undrawn:
                return
            config = group.draw()
            self._note_drawn(group, config)
            write_json(self.paths.record, self.record)
            if self.display:
                self.display.add(config, rough_seconds(config, self.options))
            yield config

    def should_prune(self, trial_id: str, row: EpochRow) -> bool:
        """Take a trial's epoch; say whether to give the trial up."""
        return self._group_of[trial_id].report(trial_id, row)

    def prune(self, trial_id: str) -> None:
        """Write the result of a trial that is given up; its worker waits in a report, and never wakes from it."""
        group = self._group_of[trial_id]
        record_pruned(group.entries[trial_id].config, self.paths.trial(trial_id))

    def started(self, trial_id: str) -> None:
        if self.display:
            self.display.started(trial_id)

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        if self.display:
            self.display.epoch(trial_id, row)

    def finished(self, result: TrialResult) -> None:
        group = self._group_of[result.trial_id]
        group.tell(result)
        if self.display:
            self.display.finished(result)
        self._note_best(group, result)

    def lost(self, trial_id: str) -> None:
        if self.display:
            self.display.lost(trial_id)

    def _restore(self, known: Sequence[TrialConfig], *, retry_failed: bool) -> list[TrialConfig]:
        """Enter the known trials, first the finished ones' scores, then the others'; return what is left to run."""
        waiting = []
        for config in known:
            index = self.search.group_of(config)
            assert index is not None, "known_trials gives no others"
            if self.groups[index].undrawn:
                self.groups[index].enter(config)
                self._note_drawn(self.groups[index], config)
        for config in self.record.trials:
            result = finished_result(self.paths, config.trial_id())
            if result is None or (retry_failed and result.status == "failed"):
                waiting.append(config)
            else:
                self._replay(config)
                self._end(result)
        return [config for config in waiting if not self._judge(config)]

    def _judge(self, config: TrialConfig) -> bool:
        """Replay an unfinished trial; whether it is over after all: its last epoch was to be its end.

        A worker of a killed session may still live for seconds: its lock is waited for.
        """
        trial_paths = self.paths.trial(config.trial_id())
        with hold_lock(trial_paths.lock, wait=True) if trial_paths.folder.exists() else contextlib.nullcontext():
            result = finished_result(self.paths, config.trial_id())
            give_up = self._replay(config)
            if (result is None or result.status == "failed") and not give_up:
                return False
            self._end(result if result and result.status != "failed" else record_pruned(config, trial_paths))
            return True

    def _replay(self, config: TrialConfig) -> bool:
        """Report a trial's epochs to its study; return the judgement after the last one."""
        group, give_up = self._group_of[config.trial_id()], False
        try:
            rows = read_epochs(self.paths.trial(config.trial_id()).epochs)
        except DamagedFileError:
            rows = []
        for row in rows:
            give_up = group.report(config.trial_id(), row)
        return give_up

    def _end(self, result: TrialResult) -> None:
        group = self._group_of[result.trial_id]
        group.tell(result)
        self._note_best(group, result)

    def _note_drawn(self, group: GroupStudy, config: TrialConfig) -> None:
        self._group_of[config.trial_id()] = group
        self.record = self.record.model_copy(update={"trials": (*self.record.trials, config)})

    def _note_best(self, group: GroupStudy, result: TrialResult) -> None:
        score, best = selection_score(group.base, result), self._best.get(group.label)
        if score is None:
            return
        selection = group.base.selection
        if best is None or goodness(selection, score) > goodness(selection, best[0]):
            values = describe_values(group.entries[result.trial_id].config, self.search)
            self._best[group.label] = score, f"{values}, {group.base.selection} {score:.4f}"
            if self.display:
                self.display.note(group.label, self._best[group.label][1])


def known_trials(search: Search, paths: SweepPaths) -> list[TrialConfig]:
    """The trials of this search that earlier sessions drew, in their order; folders that sweep.json lacks come last."""
    listed = read_sweep(paths.record).trials if paths.record.exists() else ()
    known = {config.trial_id(): config for config in listed}
    stored = [trial.config for trial in paths.trial_folders() if trial.folder.name not in known]
    for path in sorted((path for path in stored if path.exists()), key=lambda path: path.stat().st_mtime_ns):
        with contextlib.suppress(DamagedFileError):
            known.setdefault(path.parent.name, read_config(path))
    return [config for config in known.values() if search.group_of(config) is not None]
