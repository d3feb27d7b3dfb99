"""Where the trials of a sweep come from: the list of its study, or a search that draws them."""

from typing import Protocol

from raypatch.config import TrialConfig
from raypatch.results import SweepRecord
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.cost.stacks import known_together
from raypatch.sweep.groups import group_trials, place_stacks
from raypatch.sweep.parents import drop_stale_failures
from raypatch.sweep.plan import Plan, plan_sweep
from raypatch.sweep.session import Session, Work
from raypatch.sweep.watch.running import RunningSweep


class TrialSource(Protocol):
    """What a sweep runs."""

    @property
    def record(self) -> SweepRecord:
        """What sweep.json is to hold now."""

    @property
    def plan(self) -> Plan:
        """The known trials by state, as they stood at the start."""

    @property
    def undrawn(self) -> list[TrialConfig]:
        """A stand-in for each trial that is not known yet."""

    def make_work(self, placement: Placement, running: RunningSweep) -> Work:
        """Return what the executor is to run. running: counts the trials, and shows them."""


class ListedTrials:
    """The trials of a study that lists them all."""

    def __init__(self, record: SweepRecord, session: Session) -> None:
        self.record = record
        self._session = session
        self.plan = plan_sweep(
            record.trials,
            session.paths,
            session.planning_options,
            retry_failed=session.retry_failed,
        )
        self.undrawn: list[TrialConfig] = []

    def make_work(self, placement: Placement, running: RunningSweep) -> Work:
        drop_stale_failures(self.plan.todo, self._session.paths)
        options = self._session.planning_options
        groups = group_trials(self.plan.todo, lambda config: known_together(config, options), self.record.trials)
        placement = place_stacks(placement, groups, self._session.execution)
        return Work(groups, placement, listener=running, running=running, levels=self.record.levels)


def open_source(record: SweepRecord, session: Session) -> TrialSource:
    """Return the trials of a record, compared with what is on disk.

    The caller holds the run folder's lock.
    """
    if record.search is None:
        return ListedTrials(record, session)
    # Optuna is imported only where it is needed.
    from raypatch.sweep.tuning.search import SearchedTrials

    return SearchedTrials(record, session)
