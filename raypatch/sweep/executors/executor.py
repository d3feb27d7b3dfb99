"""What an executor is, and which one a session asks for."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from raypatch.config import TrialConfig
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.session import Session, Work


class Executor(Protocol):
    """Runs the trials of one session. It is asked in this order: check, place, run."""

    def check(self, trials: Sequence[TrialConfig]) -> None:
        """Check that all that the trials need is there, and make the run folder.

        Missing MedMNIST files are fetched. Raises ValueError with the way out; nothing has
        started then.
        """

    def place(self, trials: Sequence[TrialConfig]) -> Placement:
        """Return what each trial gets of the machine or machines, and how many of them run at once.

        trials: those still to run; of a search, a stand-in for each that is not drawn yet.
        """

    def run(self, work: Work) -> None:
        """Run the trials, about in order, until all are over or the session is asked to stop.

        What comes of a trial stands in its folder; work.listener is told of it on the way.
        """


@contextlib.contextmanager
def open_executor(session: Session) -> Iterator[Executor]:
    """Give the executor of a session; on a cluster, connect to it for that time.

    Raises ValueError if no cluster answers.
    """
    execution = session.execution
    # Ray is imported only where it runs the trials: that takes a second.
    if execution.executor == "local":
        from raypatch.sweep.executors.local import LocalExecutor

        yield LocalExecutor(session)
    elif not execution.on_cluster:
        from raypatch.sweep.executors.ray import RayExecutor

        yield RayExecutor(session)
    else:
        from raypatch.sweep.services.ray_setup import joined_ray

        with joined_ray(execution.address):
            from raypatch.sweep.executors.cluster import ClusterExecutor

            yield ClusterExecutor(session)
