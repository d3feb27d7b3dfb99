"""Seconds of a step and of an evaluation here, for each kind in a study: known, timed, or scaled."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.resize import held_size
from raypatch.machine.cores import available_cores, describe_other_work, is_busy, taken_cores
from raypatch.machine.runtime import on_threads
from raypatch.methods import feature_method, find_method
from raypatch.models.build import architecture_key
from raypatch.sweep.cost.seconds.calibration_file import (
    Calibration,
    keep_calibration,
    known_calibration,
    start_calibration,
)
from raypatch.sweep.cost.seconds.scaling import Timed, step_gflops
from raypatch.sweep.cost.seconds.step_timing import time_trial
from raypatch.sweep.cost.seconds.timing import Timing
from raypatch.tasks.seen import describe_seen
from raypatch.words import counted, duration

LONGEST_CALIBRATION = 20.0
"""Seconds that a plan may time for. A kind that is not expected to fit into what is left of them is scaled."""


def calibrate(
    trials: Sequence[TrialConfig],
    options: RunOptions,
    say: Callable[[str], object],
    *,
    again: bool = False,
) -> Calibration:
    """Time a few steps on made images for each kind of trial that is not yet known; keep the result.

    What there is no time for is scaled, by its arithmetic, from what was timed; a later call times
    more. Nothing is kept where other work on the machine falsifies it. again: also time those that
    are known. say: told what is timed, what falsifies it, what is scaled, and how old what is known is.
    """
    kinds = {step_kind(config, options): config for config in trials}
    calibration = start_calibration(options, forget=kinds if again else ())
    timings = calibration.timings
    timed = Timed(options)
    known = [kind for kind in kinds if kind in timings and not timings[kind].scaled]
    for kind in known:
        timed.add(kinds[kind], timings[kind])
    if known:
        say(_describe_known([timings[kind] for kind in known]))
    if options.threads:
        torch.set_num_threads(options.threads)
    if len(known) == len(kinds):
        return calibration
    taken = taken_cores()
    falsified = is_busy(taken)
    threads = torch.get_num_threads()
    if falsified:
        # One more would wait for the other work, again and again.
        threads = max(1, min(threads, int(available_cores() - taken)))
        timed_there = f"what is timed, on {counted(threads, 'core')}, may take too long and is not kept"
        say(f"{describe_other_work(taken)}: {timed_there}; plan again when the machine is idle")
    left = {kind: config for kind, config in kinds.items() if kind not in known}
    until = time.perf_counter() + LONGEST_CALIBRATION
    for kind, config in _in_order(left, options):
        expected = timed.expected_seconds(config)
        if expected is not None and expected >= until - time.perf_counter():
            continue
        say(f"timing {kind}")
        with on_threads(threads):
            timing = time_trial(config, options, passing=timed.passing(config))
        timings[kind] = timing.model_copy(update={"taken": time.time(), "load": taken})
        timed.add(config, timings[kind])
        del left[kind]
        # Each is kept at once, since the user may break off.
        if not falsified:
            keep_calibration(calibration, options)
    timings |= _scale(left, timed)
    if left:
        more = "" if falsified else ", and the next one for as long again"
        say(
            f"{len(left)} of {len(kinds)} kinds of steps are not timed but scaled, by arithmetic, from those that are:"
            f" a plan times for about {LONGEST_CALIBRATION:g} seconds{more}"
        )
        if not falsified:
            keep_calibration(calibration, options)
    return calibration


def _scale(kinds: Mapping[str, TrialConfig], timed: Timed) -> dict[str, Timing]:
    """The timings of kinds that there was no time for."""
    timings = {}
    for kind, config in kinds.items():
        scaled = timed.scale(config)
        assert scaled is not None, "the first of each method is timed"
        timings[kind] = scaled
    return timings


def keep_timing(kind: str, timing: Timing, options: RunOptions) -> None:
    """Write the timing of one kind beside those that are known of this device."""
    known = known_calibration(options)
    if known is not None and kind in known.timings:
        keep_calibration(known.model_copy(update={"timings": known.timings | {kind: timing}}), options)


def _in_order(kinds: Mapping[str, TrialConfig], options: RunOptions) -> list[tuple[str, TrialConfig]]:
    """The kinds of steps, one of each model and method first; of these those that train the model, which take longest.

    Otherwise the cheapest first.
    """
    firsts: list[tuple[str, TrialConfig]] = []
    others: list[tuple[str, TrialConfig]] = []
    seen: set[tuple[object, ...]] = set()
    for kind, config in sorted(kinds.items(), key=lambda item: step_gflops(item[1], options)):
        model = (config.method, *architecture_key(config))
        (others if model in seen else firsts).append((kind, config))
        seen.add(model)
    firsts.sort(key=lambda item: not find_method(item[1].method).trains_backbone)
    return firsts + others


def _describe_known(timings: Sequence[Timing]) -> str:
    """Say how old the known timings are, and how many cores other work took then."""
    taken = [timing.taken for timing in timings if timing.taken is not None]
    loads = [timing.load for timing in timings if timing.load is not None]
    if len(taken) < len(timings):
        age = "by an earlier version, perhaps beside other work"
    else:
        age = f"up to {duration(time.time() - min(taken))} ago, at a load of up to {max(loads):.1f}"
    return f"kinds of trials timed before: {len(timings)}, {age}; `raypatch plan --recalibrate` times them anew"


def step_kind(config: TrialConfig, options: RunOptions) -> str:
    """What a step's duration depends on, as text: trials that agree in it share a timing."""
    info = describe_seen(config, options)
    patch = "no patches" if config.patch_size is None else f"p{config.patch_size}"
    parts: list[Any] = [config.model, f"{info.dimensions}D", config.image_size, patch]
    parts += [f"batch {config.batch_size}", f"micro {options.micro_batch}"]
    parts += [config.method, config.optimizer, config.precision, config.augmentation]
    # Most trials leave the following as it is: their text stays as earlier versions wrote it.
    if config.task is not None:
        parts.append(config.task)
    if config.head != "linear":
        parts.append(f"head {config.head}")
    if feature_method(config) is not None:
        # What is timed hangs on the number of validation images too.
        parts.append(f"on stored features of {info.counts[1]}")
    if held_size(info.size, config.image_size, config.resize) != config.image_size:
        parts.append(f"{config.resize} from {info.size}")
    if config.makes_weights:
        parts.append(f"{config.objective} {config.local_views} views {config.projection_width}-{config.prototypes}")
    if 0 in config.base_rates:
        parts.append("partly frozen")
    return " ".join(map(str, parts))
