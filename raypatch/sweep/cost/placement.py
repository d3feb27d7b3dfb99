"""Where trials run: how many cores each has, which share of a GPU, and how many run side by side."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.models.flops import trial_facts
from raypatch.models.memory import peak_bytes
from raypatch.runtime import resolve_device, resolve_precision
from raypatch.sweep.cost.calibration import time_trial

MEASURABLE_GFLOPS = 200.0
"""Largest training step, in GFLOPs forward, that is worth a measurement before the sweep: about a second of a core."""

WORTHWHILE = 1.1
"""How much faster side by side must be measured to be chosen."""


SHARES = (0.25, 0.5, 1.0)
"""Shares of a GPU that are given out, so that what runs together fills a card without a rest."""

BUSY_TOKENS = 4096
"""Tokens in one step with which a trial is taken to keep a whole GPU busy. A rough figure, not measured."""

CONTEXT_BYTES = 600 << 20
"""Memory that a process takes on a GPU before its first tensor."""


@dataclass(frozen=True)
class Placement:
    """What each trial asks for.

    cpus: whole cores. gpu_share: of one GPU, 0 on a machine without; shares: by trial id, where it differs. slots: how
    many trials run at once at most.
    """

    cpus: int
    gpu_share: float
    slots: int
    shares: Mapping[str, float] = field(default_factory=dict)

    def as_bundle(self, trial_id: str = "") -> dict[str, float]:
        """The resources one trial asks of Ray."""
        share = self.shares.get(trial_id, self.gpu_share)
        return {"CPU": float(self.cpus)} | ({"GPU": share} if share else {})


def place_trials(
    todo: Sequence[TrialConfig],
    options: RunOptions,
    *,
    gpus: int,
    share: float | None,
    cpus: int | None,
    cores: int,
    card_bytes: int | None,
    say: Callable[[str], None],
) -> Placement:
    """Place trials on this machine's GPUs, of `card_bytes` memory each, or on its cores when that is None."""
    if card_bytes is None:
        return place_on_cores(todo, options, cpus=cpus, cores=cores, say=say)
    return place_on_gpus(todo, options, gpus=gpus, share=share, cpus=cpus, cores=cores, card_bytes=card_bytes)


def place_on_gpus(
    todo: Sequence[TrialConfig],
    options: RunOptions,
    *,
    gpus: int,
    share: float | None,
    cpus: int | None,
    cores: int,
    card_bytes: int,
) -> Placement:
    """Pack trials onto GPUs, cores divided between them. share: forced; None takes it from each trial's need."""
    shares = {} if share else {config.trial_id(): share_of(config, options, card_bytes) for config in todo}
    largest, smallest = (share, share) if share else (max(shares.values()), min(shares.values()))
    slots = gpus * math.floor(1 / smallest + 1e-9)
    return Placement(cpus or max(1, cores // slots), largest, slots, shares)


def share_of(config: TrialConfig, options: RunOptions, card_bytes: int) -> float:
    """The share of a GPU that a trial needs: the larger of its memory's and its load's, rounded up to one of SHARES."""
    info, facts = trial_facts(config, options)
    precision = resolve_precision(config.precision, resolve_device(options.device))
    memory = peak_bytes(config, info, facts, precision, micro_batch=config.batch_size) + CONTEXT_BYTES
    need = max(memory / card_bytes, config.batch_size * (facts.tokens + 1) / BUSY_TOKENS)
    return next((share for share in SHARES if need <= share), 1.0)


def place_on_cores(
    todo: Sequence[TrialConfig],
    options: RunOptions,
    *,
    cpus: int | None,
    cores: int,
    say: Callable[[str], None],
) -> Placement:
    """Choose between one trial on all cores and one on each core, by measuring a step of a typical trial both ways."""
    if cpus is None:
        cpus = cores
        typical = typical_trial(todo, options) if cores > 1 and len(todo) > 1 else None
        if typical is not None:
            together = step_seconds(typical, options, threads=cores)
            alone = step_seconds(typical, options, threads=1)
            gain = cores * together / alone
            cpus = 1 if gain > WORTHWHILE else cores
            choice = f"{cores} trials side by side" if cpus == 1 else f"one trial at a time on {cores} cores"
            say(f"{choice}: a core for each was measured at {gain:.2f} times the speed of all cores for one")
    return Placement(cpus, 0.0, max(1, cores // cpus))


def typical_trial(todo: Sequence[TrialConfig], options: RunOptions) -> TrialConfig | None:
    """The costliest trial of which a training step can be measured in about a second; None when all are larger."""
    cost = {}
    for config in todo:
        _, facts = trial_facts(config, options)
        cost[config] = facts.gflops * config.batch_size
    measurable = [config for config in todo if cost[config] <= MEASURABLE_GFLOPS]
    return max(measurable, key=lambda config: cost[config], default=None)


def step_seconds(config: TrialConfig, options: RunOptions, *, threads: int) -> float:
    """Median seconds of one training step on so many threads of a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return time_trial(config, options).step
    finally:
        torch.set_num_threads(before)


def check_room(device: str, *, gpus: int, cpus: int | None) -> None:
    """Raise ValueError for resources that this machine does not have: Ray would wait for them for ever."""
    cores = len(os.sched_getaffinity(0))
    if cpus is not None and cpus > cores:
        raise ValueError(f"--cpus-per-trial {cpus} is more than the {cores} cores of this machine; use at most {cores}")
    if resolve_device(device).type == "cuda" and gpus > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"--gpus {gpus} is more than the {count} of this machine; use at most {count}")
