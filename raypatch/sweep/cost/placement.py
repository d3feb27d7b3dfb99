"""Where trials run: how many cores each has, which share of a GPU, and how many run side by side."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.cores import describe_other_work, is_busy, taken_cores
from raypatch.machine.runtime import on_threads, resolve_device, resolve_precision
from raypatch.models.flops import trial_facts
from raypatch.models.memory import CONTEXT_BYTES, is_recorded, peak_bytes
from raypatch.sweep.cost.seconds.step_timing import time_trial

MEASURABLE_GFLOPS = 200.0
"""Largest training step that is measured before the sweep, in GFLOPs forward: a second of a core."""

WORTHWHILE = 1.1
"""How much faster side by side must be measured to be chosen."""

ROUNDS = 2
"""How often both ways are measured."""

SHARES = (0.25, 0.5, 1.0)
"""Shares of a GPU that are given out, so that what runs together fills a card without a rest."""

BUSY_TOKENS = 4096
"""Tokens in one step that are taken to keep a whole GPU busy. A rough number, not measured."""


@dataclass(frozen=True)
class Placement:
    """What each trial asks for.

    cpus: whole cores. gpu_share: of one GPU, 0 on a machine without; shares: by trial id, where
    it differs. slots: how many trials run at once at most.
    """

    cpus: int
    gpu_share: float
    slots: int
    shares: Mapping[str, float] = field(default_factory=dict)

    def as_bundle(self, trial_id: str = "") -> dict[str, float]:
        """The resources one trial asks of Ray."""
        bundle = {"CPU": float(self.cpus)}
        share = self.shares.get(trial_id, self.gpu_share)

        if share:
            bundle["GPU"] = share
        return bundle


@dataclass(frozen=True)
class Room:
    """What trials may have of one machine.

    cores, gpus: to give out. card_bytes: memory of one of its GPUs, None to run on the cores.
    cpus, gpu_share: of one trial, where the user forces them; None lets the trials decide.
    """

    cores: int
    gpus: int = 1
    card_bytes: int | None = None
    cpus: int | None = None
    gpu_share: float | None = None


def place_trials(
    trials: Sequence[TrialConfig], options: RunOptions, room: Room, say: Callable[[str], object]
) -> Placement:
    """Place trials on a machine's GPUs, or on its cores where it has none.

    say: told what was measured for that.
    """
    if room.card_bytes is None:
        return place_on_cores(trials, options, room, say)
    return place_on_gpus(trials, options, room)


def place_on_gpus(trials: Sequence[TrialConfig], options: RunOptions, room: Room) -> Placement:
    """Pack trials onto GPUs, and divide the cores between them.

    Each trial's share of a GPU follows its need, unless the user forces one.
    """
    shares: dict[str, float] = {}
    if room.gpu_share is not None:
        largest = smallest = room.gpu_share
    else:
        assert room.card_bytes is not None
        for config in trials:
            shares[config.trial_id()] = share_of(config, options, room.card_bytes)
        largest, smallest = max(shares.values()), min(shares.values())
    # 1 / 0.1 may come out just below 10: the small number makes up for it.
    slots = room.gpus * math.floor(1 / smallest + 1e-9)
    cpus = room.cpus or max(1, room.cores // slots)
    return Placement(cpus, largest, slots, shares)


def share_of(config: TrialConfig, options: RunOptions, card_bytes: int) -> float:
    """Return the share of a GPU that a trial needs, by its memory or its load, whichever is more.

    It is rounded up to one of SHARES.
    """
    info, facts = trial_facts(config, options)
    precision = resolve_precision(config.precision, resolve_device(options.device))
    batch = config.batch_size
    recorded = is_recorded(config, facts, batch)
    memory = peak_bytes(config, info, facts, precision, micro_batch=batch, recorded=recorded) + CONTEXT_BYTES
    tokens = facts.tokens
    if tokens is None:
        # A network without tokens counts as many as a patch size of 16 would make.
        tokens = config.image_size**info.dimensions // 16**info.dimensions
    load = batch * (tokens + 1) / BUSY_TOKENS
    need = max(memory / card_bytes, load)
    for share in SHARES:
        if need <= share:
            return share
    return 1.0


def place_on_cores(
    trials: Sequence[TrialConfig], options: RunOptions, room: Room, say: Callable[[str], object]
) -> Placement:
    """Give each trial the cores that the user says, or else those that were measured to be best."""
    cpus = room.cpus
    if cpus is None:
        cpus = _measure_best_cores(trials, options, room.cores, say)
    return Placement(cpus, 0.0, max(1, room.cores // cpus))


def _measure_best_cores(
    trials: Sequence[TrialConfig], options: RunOptions, cores: int, say: Callable[[str], object]
) -> int:
    """Choose between one trial on all cores and one on each core.

    A step of a typical trial is measured both ways, in turn. Not beside other work: there a step on all cores waits
    again and again for the thread whose core is taken, which makes it up to a hundred times slower. Side by side is
    right then, and nearly as good where the other work ends soon.
    """
    typical = typical_trial(trials, options) if cores > 1 and len(trials) > 1 else None
    if typical is None:
        return cores
    side_by_side = f"{cores} trials side by side"
    taken = taken_cores()
    if is_busy(taken):
        say(f"{side_by_side}: {describe_other_work(taken)}; a step on all cores would wait for it")
        return 1
    together = alone = math.inf
    for _ in range(ROUNDS):
        # Other work that begins meanwhile can only add to either.
        together = min(together, step_seconds(typical, options, threads=cores))
        alone = min(alone, step_seconds(typical, options, threads=1))
    if together >= alone:
        say(f"{side_by_side}: a step was measured to be no faster on all cores than on one")
        return 1
    gain = cores * together / alone
    measured = f"a core for each was measured at {gain:.2f} times the speed of all cores for one"
    if gain > WORTHWHILE:
        say(f"{side_by_side}: {measured}")
        return 1
    say(f"one trial at a time on {cores} cores: {measured}")
    return cores


def typical_trial(trials: Sequence[TrialConfig], options: RunOptions) -> TrialConfig | None:
    """Return the costliest trial of which a step can be measured in about a second.

    None when all are larger.
    """
    typical, most = None, 0.0
    for config in trials:
        _, facts = trial_facts(config, options)
        gflops = facts.gflops * config.batch_size
        if most < gflops <= MEASURABLE_GFLOPS:
            typical, most = config, gflops
    return typical


def step_seconds(config: TrialConfig, options: RunOptions, *, threads: int) -> float:
    """Least seconds of one training step on so many threads of a CPU."""
    with on_threads(threads):
        return time_trial(config, options).step


def check_cores(cpus_per_trial: int | None, cores: int, where: str) -> None:
    """Raise ValueError for more cores than one machine has: Ray would wait for them for ever.

    where: who has them.
    """
    if cpus_per_trial is not None and cpus_per_trial > cores:
        raise ValueError(
            f"--cpus-per-trial {cpus_per_trial} is more than the {cores} cores of {where}; use at most {cores}"
        )


def check_gpus(gpus: int, cards: int, where: str) -> None:
    """Raise ValueError for more GPUs than there are: Ray would wait for them for ever.

    where: who has them.
    """
    if gpus > cards:
        raise ValueError(f"--gpus {gpus} is more than the {cards} of {where}; use at most {cards}")
