"""A step of several models as one, timed against steps of one alone."""

import time
from collections.abc import Callable, Sequence

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.augment import draw_parameters
from raypatch.data.batches.resize import held_size
from raypatch.data.source import describe
from raypatch.machine.cores import is_busy, taken_cores
from raypatch.methods import find_method
from raypatch.models.attention import choose_attention
from raypatch.models.prepared import PreparedModel, prepare_model
from raypatch.sweep.cost.seconds.calibration import LONGEST_CALIBRATION, keep_timing, step_kind
from raypatch.sweep.cost.seconds.calibration_file import Calibration
from raypatch.sweep.cost.seconds.step_timing import images_of_step
from raypatch.sweep.cost.seconds.timing import TIMED_STEPS
from raypatch.sweep.cost.stacks import could_stack, pays, together_at_most
from raypatch.tasks import find_task
from raypatch.training.optim import make_optimizer
from raypatch.training.stacked_models import make_stacked_step
from raypatch.training.steps.step import WARM_UP_STEPS, TrainingStep

STACKED = 3
"""Models of a stack that is timed: the seeds of most studies."""

LONGEST_STEP = 4.0
"""Seconds of a step of a whole stack from which on it is not timed."""


def time_stacks(
    calibration: Calibration, trials: Sequence[TrialConfig], options: RunOptions, say: Callable[[str], object]
) -> Calibration:
    """Add to a calibration how long a step takes in a stack, of each kind of trial that has company; keep it.

    A stack saves what a step takes however small its arithmetic is: where a model gained nothing, its larger kinds are
    taken to gain nothing too. What is left after LONGEST_CALIBRATION, or takes long, stays untimed; so do all beside
    other work, which hits a stack more or less than a model alone.
    """
    if options.stack == "off":
        return calibration
    timings = dict(calibration.timings)
    started = time.perf_counter()
    kinds = {step_kind(config, options): config for config in could_stack(trials)}
    if all(timings[kind].stacked is not None for kind in kinds) or is_busy(taken_cores()):
        return calibration
    forced = options.model_copy(update={"stack": STACKED})
    without_gain: set[str] = set()
    for kind in sorted(kinds, key=lambda kind: timings[kind].step):
        config, timing = kinds[kind], timings[kind]
        if timing.stacked is None:
            if timing.step > LONGEST_STEP / STACKED or time.perf_counter() - started > LONGEST_CALIBRATION:
                break
            ratio = 1.0
            if config.model not in without_gain and together_at_most(config, forced, timing) == STACKED:
                say(f"timing {kind}, {STACKED} models as one")
                ratio = stacked_ratio(config, options)
            timing = timing.model_copy(update={"stacked": ratio * timing.step})
            timings[kind] = timing
            keep_timing(kind, timing, options)
        if not pays(timing):
            without_gain.add(config.model)
    return calibration.model_copy(update={"timings": timings})


def stacked_ratio(config: TrialConfig, options: RunOptions) -> float:
    """Return the time of a step of STACKED models as one over that of as many steps of one alone; 1 if it cannot be.

    Both are taken in turn, so that other work on the machine hits both.
    """
    info = describe(config.source, data_dir=options.data_dir, files=options.files)
    method = find_method(config.method)
    size = images_of_step(config, options)
    # Pretrained weights would be downloaded, and take no other time than random ones.
    made = config.model_copy(update={"weights": "random", "batch_size": size})
    alone, *members = [prepare_model(made, info, options) for _ in range(1 + STACKED)]
    for prepared in (alone, *members):
        choose_attention(prepared, size)
        method.prepare(prepared)
        method.set_training_mode(prepared)
    edge = held_size(info.size, config.image_size, config.resize)
    images = torch.randint(0, 256, (size, STACKED, info.channels, *(edge,) * info.dimensions), dtype=torch.uint8)
    images = images.to(alone.device)
    task = find_task(config.task or info.task)
    blank = task.blank_labels(size, task.outputs(info.classes)).to(alone.device)
    labels = torch.stack([blank] * STACKED, dim=1)
    parameters = None
    if config.augmentation == "paper":
        shape = alone.augmented_shape(images[:, 0])
        drawn = draw_parameters(size * STACKED, shape, torch.Generator(), mirror_safe=True)
        parameters = drawn.unflatten(0, (size, STACKED)).to(alone.device)
    micro_batch = size if options.micro_batch == "auto" else options.micro_batch
    step = TrainingStep(alone, _optimizer(alone, made), task.loss, made, micro_batch=micro_batch)
    optimizers = [_optimizer(each, made) for each in members]
    stacked_step, stack = make_stacked_step(members, optimizers, task.loss, made, micro_batch=micro_batch)
    try:
        stack.rehearse(
            alone.inputs(images[:, 0]).unsqueeze(1).expand(-1, STACKED, *(-1,) * (images.ndim - 2)), alone.precision
        )
    except (RuntimeError, ValueError):
        return 1.0
    first = None if parameters is None else parameters[:, 0]
    seconds_alone, seconds_stacked = _in_turn(
        lambda: step(images[:, 0], labels[:, 0], first).tolist(),
        lambda: stacked_step(images, labels, parameters).tolist(),
        # The first steps on a GPU are slower: a CUDA graph is recorded then.
        warm_up=WARM_UP_STEPS + 2 if alone.device.type == "cuda" else 1,
    )
    return seconds_stacked / (STACKED * seconds_alone)


def _optimizer(prepared: PreparedModel, config: TrialConfig) -> torch.optim.Optimizer:
    return make_optimizer(prepared.model, config, prepared.head)


def _in_turn(one: Callable[[], object], other: Callable[[], object], *, warm_up: int) -> tuple[float, float]:
    """Return the least seconds of two calls that take turns, after some that do not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(warm_up + TIMED_STEPS):
        for call, taken in zip((one, other), seconds, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return min(seconds[0][warm_up:]), min(seconds[1][warm_up:])
