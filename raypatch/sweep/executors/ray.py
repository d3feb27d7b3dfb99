"""The Ray executor: Ray Tune on a Ray that is started on this machine for the time of the sweep."""

import contextlib
from collections.abc import Iterator, Sequence

from raypatch.config import TrialConfig
from raypatch.machine.cores import available_cores
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.machine import check_machine, place_here
from raypatch.sweep.executors.tuner import RaypatchTrial, run_on_ray
from raypatch.sweep.services.mps import CONTROL, simultaneous_kernels
from raypatch.sweep.services.ray_setup import local_ray
from raypatch.sweep.session import Session, Work


class RayExecutor:
    """Runs trials side by side in worker processes of this machine.

    actor: the class of the process that runs a trial; a subclass may put another in its place, as
    benchmarks do.
    """

    actor: type = RaypatchTrial

    def __init__(self, session: Session) -> None:
        self.session = session

    def check(self, trials: Sequence[TrialConfig]) -> None:
        check_machine(self.session, trials)

    def place(self, trials: Sequence[TrialConfig]) -> Placement:
        return place_here(self.session, trials)

    def run(self, work: Work) -> None:
        placement, execution = work.placement, self.session.execution
        # Ray starts no more trials than it has CPUs for: it is told of as many as the slots need.
        cpus = max(available_cores(), placement.slots * placement.cpus)
        gpus = execution.gpus if placement.gpu_share else 0
        # Ray takes seconds to start, on a busy machine a minute.
        if self.session.stop.is_set():
            return
        with (
            self._sharing(placement),
            local_ray(cpus=cpus, gpus=gpus, dashboard=execution.dashboard) as storage,
        ):
            if self.session.stop.is_set():
                return
            run_on_ray(self.session, work, storage, actor=self.actor)

    @contextlib.contextmanager
    def _sharing(self, placement: Placement) -> Iterator[None]:
        """Let trials that are placed on one GPU use it at the same time, as long as Ray's processes start here."""
        execution = self.session.execution
        if not (execution.mps and placement.gpu_share and placement.slots > execution.gpus):
            yield
            return
        with simultaneous_kernels() as together:
            if not together:
                self.session.say(f"trials share the GPU by turns: {CONTROL} is not there, or would not start")
            yield
