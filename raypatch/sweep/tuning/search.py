"""A search while it runs: what draws its trials, judges them and tells of them, for the executor."""

from collections.abc import Iterator, Sequence

from raypatch.config import TrialConfig
from raypatch.results import EpochRow, SweepRecord, TrialResult, write_json
from raypatch.study.budget import describe_budget
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.guard import record_pruned
from raypatch.sweep.plan import plan_sweep, rough_seconds
from raypatch.sweep.session import Session, Work
from raypatch.sweep.tuning.group import SearchGroup
from raypatch.sweep.tuning.recipes import describe_values
from raypatch.sweep.tuning.restore import restore_search
from raypatch.sweep.tuning.state import SearchState
from raypatch.sweep.watch.running import RunningSweep


class SearchedTrials:
    """The trials of a search, taken up where earlier sessions left it.

    The caller holds the run folder's lock.
    """

    def __init__(self, record: SweepRecord, session: Session) -> None:
        self.session = session
        self.state, self.unfinished = restore_search(record, session)
        if self.undrawn or self.unfinished:
            session.say(describe_budget(self.state.search))
            if isinstance(session.options.stack, int):
                session.say(f"--stack {session.options.stack} does nothing here: a search trains each trial alone")
        drawn = self.state.record.trials
        self.plan = plan_sweep(
            drawn,
            session.paths,
            session.planning_options,
            retry_failed=session.retry_failed,
        )

    @property
    def record(self) -> SweepRecord:
        return self.state.record

    @property
    def undrawn(self) -> list[TrialConfig]:
        return self.state.undrawn

    def make_work(self, placement: Placement, running: RunningSweep) -> Work:
        options = self.session.planning_options
        running.to_draw = [rough_seconds(config, options) for config in self.undrawn]
        return Work(
            # Each alone: what comes of one decides what is drawn next.
            groups=((config,) for config in draw_trials(self.state, self.unfinished, self.session, running)),
            placement=placement,
            listener=SearchListener(self.state, running),
            judge=SearchJudge(self.state, self.session),
            running=running,
            levels=self.state.levels,
        )


def draw_trials(
    state: SearchState, unfinished: Sequence[TrialConfig], session: Session, running: RunningSweep
) -> Iterator[TrialConfig]:
    """Yield what to run next: first what was begun, then draws from the group with the fewest so far."""
    yield from unfinished
    options = session.planning_options
    # max takes the first of equals: the costliest group, since long trials should not come last.
    costliest_first = sorted(state.groups, key=lambda group: -rough_seconds(group.base, options))
    while not session.stop.is_set():
        group = max(costliest_first, key=lambda group: group.undrawn)
        if not group.undrawn:
            return
        config = group.draw()
        state.add(group, config)
        # Every draw stands in sweep.json before it runs: a killed session loses none.
        write_json(session.paths.record, state.record)
        running.add(config, rough_seconds(config, options))
        yield config


class SearchJudge:
    """The Judge of a search: each trial is compared with the others of its group."""

    def __init__(self, state: SearchState, session: Session) -> None:
        self._state = state
        self._paths = session.paths

    def is_hopeless(self, trial_id: str, row: EpochRow) -> bool:
        return self._state.group_of(trial_id).report(trial_id, row)

    def give_up(self, trial_id: str) -> None:
        config = self._state.group_of(trial_id).config_of(trial_id)
        record_pruned(config, self._paths.trial(trial_id))


class SearchListener:
    """The Listener of a search: tells each group of its results, and the display of everything.

    What is best so far is a note of the display.
    """

    def __init__(self, state: SearchState, running: RunningSweep) -> None:
        self._state = state
        self._running = running
        for group in state.groups:
            self._show_best(group)

    def started(self, trial_id: str) -> None:
        self._running.started(trial_id)

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        self._running.epoch(trial_id, row)

    def finished(self, result: TrialResult) -> None:
        group = self._state.group_of(result.trial_id)
        best_before = group.best
        group.tell(result)
        self._running.finished(result)
        if group.best != best_before:
            self._show_best(group)

    def lost(self, trial_id: str) -> None:
        self._running.lost(trial_id)

    def _show_best(self, group: SearchGroup) -> None:
        if group.best is None:
            return
        config, score = group.best
        values = describe_values(config, self._state.search)
        self._running.note(group.label, f"{values}, {config.selection} {score:.4f}")
