"""What one command on a run folder shares (Session), and what it hands to an executor (Work)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import EpochRow, SweepPaths, TrialResult
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.watch.running import RunningSweep


class ExecutorOptions(BaseModel):
    """How the trials of a sweep are executed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["ray", "local"] = Field("ray", description="Ray Tune, or one by one in this process.")
    address: str = Field(
        "local",
        description="local: a Ray of its own here; else of a cluster: HOST:PORT or auto.",
    )
    gpus: int = Field(1, ge=1, description="Physical GPUs that the whole sweep may use.")
    gpu_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of a GPU per trial; default by each trial's memory and load.",
    )
    mps: bool = Field(
        True,
        description="Let trials that share a GPU run at once, by NVIDIA's MPS, where the machine has it.",
    )
    cpus_per_trial: int | None = Field(
        None,
        ge=1,
        description="Cores of one trial; default all, or 1 beside a GPU.",
    )
    reuse_actors: bool = Field(True, description="Keep worker processes between trials.")
    retries: int = Field(2, ge=0, description="Further tries of a crashed trial, from its checkpoint.")
    dashboard: bool = Field(
        False,
        description="Serve Ray's dashboard; each trial then has a worker of its own name.",
    )
    track: Literal["none", "mlflow", "wandb"] = Field(
        "none",
        description="Experiment tracker to tell of each epoch.",
    )

    @property
    def on_cluster(self) -> bool:
        """Whether trials run on a cluster's nodes, not on this machine."""
        return self.address != "local"


def print_line(text: str) -> None:
    """Say something to the user at once, also through a pipe."""
    print(text, flush=True)


@dataclass(frozen=True)
class Session:
    """One command at work on a run folder.

    options: of the trials, as the user gave them. execution: how trials are executed. stop: asks
    all of it to stop. time_limit: seconds. retry_failed: whether failed trials run again. say:
    tells the user what is going on.
    """

    paths: SweepPaths
    options: RunOptions
    execution: ExecutorOptions
    stop: StopRequest
    time_limit: float | None = None
    retry_failed: bool = False
    say: Callable[[str], object] = print_line

    @property
    def planning_options(self) -> RunOptions:
        """The options with which this machine plans."""
        # It may lack the GPU that the nodes of a cluster have.
        if self.execution.on_cluster:
            return self.options.model_copy(update={"device": "auto"})
        return self.options


class Listener(Protocol):
    """What an executor tells of its trials."""

    def started(self, trial_id: str) -> None:
        """The trial began or went on."""

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        """An epoch is done and safe on disk."""

    def finished(self, result: TrialResult) -> None:
        """The trial is over."""

    def lost(self, trial_id: str) -> None:
        """The trial stopped without a result: asked to, or its process died."""


class Judge(Protocol):
    """Who gives trials up before their last epoch: a search."""

    def is_hopeless(self, trial_id: str, row: EpochRow) -> bool:
        """Take a trial's epoch, on disk already; say whether to give the trial up."""

    def give_up(self, trial_id: str) -> None:
        """Write the result of a trial that is given up, whose worker will touch its folder no more."""


Group = tuple[TrialConfig, ...]
"""Trials that are run together by one worker; most are alone in theirs."""


@dataclass(frozen=True)
class Work:
    """What an executor is to run.

    groups: in order; those of a search are drawn one by one, when there is room. placement: what
    each group asks for, as its first trial does, and how many run at once. listener: is told of
    each trial. judge: gives trials up; None where all run through. running: the counts of the
    sweep, for gauges. levels: by trial id its level of each factor, for gauges too; a search adds
    to it as it draws.
    """

    groups: Iterable[Group]
    placement: Placement
    listener: Listener
    judge: Judge | None = None
    running: RunningSweep | None = None
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
