"""Seconds of a step and of an evaluation here: timed on made images, kept per device and version."""

import contextlib
import functools
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.augment import draw_parameters
from raypatch.data.resize import held_size
from raypatch.machine.cores import available_cores
from raypatch.machine.environment import cache_folder
from raypatch.machine.runtime import provenance, resolve_device
from raypatch.methods import feature_method, find_method
from raypatch.models.attention import choose_attention
from raypatch.models.build import architecture_key
from raypatch.models.flops import trial_facts
from raypatch.models.memory import fit_memory
from raypatch.models.prepared import evaluation_batch, prepare_model
from raypatch.storage.files import write_atomically
from raypatch.sweep.cost.head_timing import time_head
from raypatch.sweep.cost.pretraining_timing import time_pretraining
from raypatch.sweep.cost.timing import TIMED_STEPS, Timing, median_seconds, timed_images
from raypatch.tasks import find_task
from raypatch.tasks.seen import describe_seen
from raypatch.training.checkpoint import Progress, save_tensors
from raypatch.training.optim import make_optimizer
from raypatch.training.step import WARM_UP_STEPS, TrainingStep
from raypatch.words import duration

LONGEST_STEP = 4.0
"""Seconds. A step that is expected to take longer is not timed.

Its time is scaled, by its arithmetic, from that of the next shorter one.
"""

LONGEST_CALIBRATION = 30.0
"""Seconds after which nothing more is timed: what is left is scaled likewise."""

BUSY_LOAD = 0.5
"""Processes per core that wanted to run in the last minute; from here on timings are not trusted."""


class Calibration(BaseModel):
    """What was timed on one device with one set of versions; disk: bytes/s of writing a checkpoint."""

    model_config = ConfigDict(extra="forbid")

    machine: dict[str, str]
    disk: float
    timings: dict[str, Timing] = {}


def calibrate(
    trials: Sequence[TrialConfig],
    options: RunOptions,
    say: Callable[[str], object],
    *,
    again: bool = False,
) -> Calibration:
    """Time a few steps on made images for each kind of trial that is not yet known; keep the result.

    It is not kept where other work on the machine falsifies it. again: also time those that are
    known. say: told what is timed, what falsifies it, and how old what is known is.
    """
    path, machine = _cache(options)
    kinds = {step_kind(config, options): config for config in trials}
    found = _read(path, machine)
    kept = {} if found is None else dict(found.timings)
    if again:
        for kind in kinds:
            kept.pop(kind, None)
    disk = _time_disk() if found is None or again else found.disk
    # A copy: what was read is shared by all who ask, and is not changed.
    calibration = Calibration(machine=machine, disk=disk, timings=kept)
    load, known = os.getloadavg()[0], kinds.keys() & calibration.timings.keys()
    is_busy = load > BUSY_LOAD * available_cores()
    if known:
        say(_describe_known([calibration.timings[kind] for kind in known]))
    if is_busy and len(known) < len(kinds):
        say(
            f"other work runs here (load {load:.1f} on {available_cores()} cores): times may be too long and are not"
            " kept; plan again when the machine is idle"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    timed: dict[tuple[str, bool], list[tuple[float, Timing]]] = {}
    started = time.perf_counter()
    hurried: set[str] = set()
    for kind, config in _in_order(kinds, options):
        flops = _step_flops(config, options)
        alike = config.method, feature_method(config) is not None
        timing = calibration.timings.get(kind)
        if timing is None:
            in_time = time.perf_counter() - started < LONGEST_CALIBRATION
            longest = LONGEST_STEP if in_time else 0
            timing = _scaled_timing(timed.get(alike, []), flops, config, longest=longest)
            if timing is None:
                say(f"timing {kind}")
                timing = time_trial(config, options)
            elif not in_time:
                hurried.add(kind)
            timing = timing.model_copy(update={"taken": time.time(), "load": load})
            calibration.timings[kind] = timing
            # Each is kept at once, since the user may break off; what only hurry left untimed is not.
            if not is_busy and kind not in hurried:
                _keep(calibration, hurried, path)
        timed.setdefault(alike, []).append((flops, timing))
    if hurried:
        said = f"{len(hurried)} more kinds of steps are not timed but scaled by their arithmetic"
        say(f"{LONGEST_CALIBRATION:g} seconds are over: {said}")
    return calibration


def _in_order(kinds: Mapping[str, TrialConfig], options: RunOptions) -> list[tuple[str, TrialConfig]]:
    """The kinds of steps, cheapest first; before all others one of each model and method."""
    firsts: list[tuple[str, TrialConfig]] = []
    others: list[tuple[str, TrialConfig]] = []
    seen: set[tuple[object, ...]] = set()
    for kind, config in sorted(kinds.items(), key=lambda item: _step_flops(item[1], options)):
        model = (config.method, *architecture_key(config))
        (others if model in seen else firsts).append((kind, config))
        seen.add(model)
    return firsts + others


def _keep(calibration: Calibration, hurried: Collection[str], path: Path) -> None:
    """Write a calibration down but for the hurried kinds; without a place for it, the next one takes its time again."""
    timed = {kind: timing for kind, timing in calibration.timings.items() if kind not in hurried}
    calibration = calibration.model_copy(update={"timings": timed})
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, calibration.model_dump_json(indent=1).encode())


def _describe_known(timings: Sequence[Timing]) -> str:
    """Say how old the known timings are, and beside how much other work they were taken."""
    taken = [timing.taken for timing in timings if timing.taken is not None]
    loads = [timing.load for timing in timings if timing.load is not None]
    if len(taken) < len(timings):
        age = "by an earlier version, perhaps beside other work"
    else:
        age = f"up to {duration(time.time() - min(taken))} ago, at a load of up to {max(loads):.1f}"
    return f"kinds of trials timed before: {len(timings)}, {age}; `raypatch plan --recalibrate` times them anew"


def _scaled_timing(
    timed: Sequence[tuple[float, Timing]], flops: float, config: TrialConfig, *, longest: float
) -> Timing | None:
    """The timing of a step that would take longer than `longest` seconds; None for one that is to be timed.

    timed: arithmetic and timing of other kinds of the same method, since methods do other things with
    the same arithmetic. The one of the nearest arithmetic is scaled.
    """
    if not timed:
        return None
    flops_of_other, timing = min(timed, key=lambda other: abs(math.log(flops / other[0])))
    scale = flops / flops_of_other
    if feature_method(config) is not None:
        # Its step is the head's, which does not grow with the backbone.
        return None if longest else timing.model_copy(update={"evaluation": scale * timing.evaluation})
    if scale * timing.step <= longest:
        return None
    scaled = {"step": scale * timing.step, "evaluation": scale * timing.evaluation, "stacked": None}
    return timing.model_copy(update=scaled)


def keep_timing(kind: str, timing: Timing, options: RunOptions) -> None:
    """Write the timing of one kind beside those that are known of this device; not where other work falsifies it."""
    known = known_calibration(options)
    is_busy = os.getloadavg()[0] > BUSY_LOAD * available_cores()
    if known is None or kind not in known.timings or is_busy:
        return
    more = known.model_copy(update={"timings": known.timings | {kind: timing}})
    _keep(more, (), _cache(options)[0])


def known_calibration(options: RunOptions) -> Calibration | None:
    """What was timed on this device before; None where nothing was."""
    return _read(*_cache(options))


def time_trial(config: TrialConfig, options: RunOptions) -> Timing:
    """Time a training step and the evaluation of an image, on noise shaped like the trial's images."""
    if feature_method(config) is not None:
        return time_head(config, options)
    if config.makes_weights:
        return time_pretraining(config, options)
    info = describe_seen(config, options)
    # A backward pass counts as two forward ones.
    batch_size = timed_images(config.batch_size, 3 * trial_facts(config, options)[1].gflops, options)
    # Pretrained weights would be downloaded, and take no other time than random ones.
    made = config.model_copy(update={"weights": "random", "batch_size": batch_size})
    prepared = prepare_model(made, info, options)
    method = find_method(config.method)
    method.prepare(prepared)
    evaluated = evaluation_batch(prepared.facts.tokens, config.image_size**info.dimensions)
    # Of a batch that is cut short the evaluation is, too.
    count = max(config.batch_size, min(64, evaluated)) if batch_size == config.batch_size else batch_size
    held = (held_size(info.size, config.image_size, config.resize),) * info.dimensions
    noise = torch.randint(0, 256, (count, info.channels, *held), dtype=torch.uint8)
    images = noise.to(prepared.device)
    # A GPU works on after the call has returned: .cpu() here and .item() below wait for it.
    evaluation = median_seconds(lambda: prepared.logits(images).cpu(), warm_up=1, repeats=3) / count

    task = find_task(config.task or info.task)
    labels = task.blank_labels(batch_size, task.outputs(info.classes)).to(prepared.device)
    parameters = None
    if config.augmentation != "none":
        shape = prepared.augmented_shape(images)
        elastic = config.augmentation == "elastic"
        drawn = draw_parameters(batch_size, shape, torch.Generator(), mirror_safe=True, elastic=elastic)
        parameters = drawn.to(prepared.device)
    choose_attention(prepared, batch_size)
    step = TrainingStep(
        prepared,
        make_optimizer(prepared.model, made, prepared.head),
        # Weights and focal loss take no time to speak of.
        task.loss,
        made,
        micro_batch=fit_memory(prepared, made, options.micro_batch),
    )
    method.set_training_mode(prepared)
    batch = images[:batch_size], labels, parameters
    # The first steps on a GPU are slower: a CUDA graph is recorded then.
    warm_up = WARM_UP_STEPS + 2 if prepared.device.type == "cuda" else 1
    seconds = median_seconds(lambda: step(*batch).item(), warm_up=warm_up, repeats=TIMED_STEPS)
    return Timing(step=seconds * config.batch_size / batch_size, evaluation=evaluation)


def _time_disk() -> float:
    weights = torch.zeros(2**24)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        tensors = {"weights": weights}
        seconds = median_seconds(lambda: save_tensors(path, tensors, Progress()), warm_up=0, repeats=3)
    return weights.nbytes / seconds


def _step_flops(config: TrialConfig, options: RunOptions) -> float:
    return config.batch_size * trial_facts(config, options)[1].gflops


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


def _cache(options: RunOptions) -> tuple[Path, dict[str, str]]:
    """Where the calibration for this device, versions and threads is kept, and what names it."""
    return _cache_of(options.device, options.threads or torch.get_num_threads())


@functools.cache
def _cache_of(device: str, threads: int) -> tuple[Path, dict[str, str]]:
    resolved = resolve_device(device)
    found = provenance()
    names = ["raypatch", "torch", "timm"]
    names += ["gpu", "cuda"] if resolved.type == "cuda" else ["cpu"]
    machine = {name: found[name] for name in names} | {"device": resolved.type}
    if resolved.type == "cpu":
        # On a GPU the host's threads hardly matter, and would only split the cache.
        machine["threads"] = str(threads)
    named = json.dumps(machine, sort_keys=True)
    digest = hashlib.sha256(named.encode()).hexdigest()[:12]
    return cache_folder() / f"calibration-{digest}.json", machine


def _read(path: Path, machine: dict[str, str]) -> Calibration | None:
    try:
        found = _parse(path, path.stat().st_mtime_ns)
    except (OSError, ValidationError):
        return None
    # The file's name holds 12 digits of a digest only: its content decides.
    return found if found.machine == machine else None


@functools.cache
def _parse(path: Path, _mtime_ns: int) -> Calibration:
    return Calibration.model_validate_json(path.read_bytes())
