"""The in-process executor: one trial, or group of trials, after another, no Ray. For debugging and small sweeps."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.cores import describe_other_work, is_busy, taken_cores
from raypatch.results import EpochRow, TrialResult
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.machine import check_machine, place_here, room_here
from raypatch.sweep.guard import Pruned, SweepHaltedError, record_failure, run_group_guarded, run_guarded
from raypatch.sweep.parents import ready_groups
from raypatch.sweep.session import Group, Session, Work
from raypatch.training.loop import Interrupted


class LocalExecutor:
    """Runs trials in this process, one at a time and in order.

    A crashed one is tried again from its checkpoint, as often as the session's `retries` say.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def check(self, trials: Sequence[TrialConfig]) -> None:
        check_machine(self.session, trials)

    def place(self, trials: Sequence[TrialConfig]) -> Placement:
        room = room_here(self.session)
        if room.card_bytes is None:
            # One at a time has all cores: there is nothing to measure.
            if room.cores > 1 and not (room.cpus or self.session.options.threads):
                self._tell_of_other_work()
            return Placement(room.cpus or room.cores, 0.0, slots=1)
        return replace(place_here(self.session, trials), slots=1)

    def _tell_of_other_work(self) -> None:
        """Say it where steps on all cores will wait for other work. They stay on all, as rounding depends on that."""
        taken = taken_cores()
        if is_busy(taken):
            warning = describe_other_work(taken)
            self.session.say(f"{warning}; a step on all cores waits for it: --cpus-per-trial 1 may be faster")

    def run(self, work: Work) -> None:
        threads = self.session.options.threads or work.placement.cpus
        options = self.session.options.model_copy(update={"threads": threads})
        for group in ready_groups(work.groups, self.session.paths, work.listener):
            # To wait would be in vain: what is waited for was asked to stop.
            if group is None or self.session.stop.is_set():
                return
            self._run_group(group, options, work)

    def _run_group(self, group: Group, options: RunOptions, work: Work) -> None:
        """Run one trial, or several together, until they are over, lost to a stop, or out of tries."""
        stop, retries = self.session.stop, self.session.execution.retries
        left = {config.trial_id(): config for config in group}
        for attempt in range(retries + 1):
            for trial_id in left:
                work.listener.started(trial_id)
            try:
                for result in self._try(tuple(left.values()), options, work):
                    del left[result.trial_id]
                    work.listener.finished(result)
                return
            except Interrupted:
                # Asked to stop: the checkpoints stand, and the next session goes on from them.
                break
            except SweepHaltedError as error:
                stop.halt(str(error))
                break
            except Exception as error:
                # Anything else may be a passing trouble, such as a full memory: it is tried again.
                if attempt < retries:
                    if stop.is_set():
                        return
                    continue
                for trial_id, config in left.items():
                    work.listener.finished(record_failure(config, self.session.paths.trial(trial_id), error))
                return
        for trial_id in left:
            work.listener.lost(trial_id)

    def _try(self, group: Group, options: RunOptions, work: Work) -> Iterable[TrialResult]:
        """Train, and give each trial's result when it is over."""
        if len(group) == 1:
            return [self._try_alone(group[0], options, work)]
        return run_group_guarded(
            group,
            self.session.paths,
            options,
            on_epoch=work.listener.epoch,
            should_stop=self.session.stop.is_set,
        )

    def _try_alone(self, config: TrialConfig, options: RunOptions, work: Work) -> TrialResult:
        """Train, and stop at an epoch after which the judge finds the trial hopeless."""
        trial_id = config.trial_id()

        def on_epoch(row: EpochRow) -> None:
            work.listener.epoch(trial_id, row)
            if work.judge is not None and work.judge.is_hopeless(trial_id, row):
                raise Pruned

        return run_guarded(
            config,
            self.session.paths,
            options,
            on_epoch=on_epoch,
            should_stop=self.session.stop.is_set,
        )
