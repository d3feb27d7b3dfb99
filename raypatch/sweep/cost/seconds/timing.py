"""What is timed of a trial, and how."""

import time
from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict

from raypatch.config import RunOptions
from raypatch.machine.runtime import resolve_device

TIMED_STEPS = 5
LONGEST_TIMING = 0.75
"""Seconds after which a step that was timed once is not repeated."""

TIMED_GFLOPS = 10
"""On a CPU a step or a pass is timed on images of so much forward arithmetic: there time grows with the images."""


class Timing(BaseModel):
    """Seconds of one optimizer step and of evaluating one image.

    Of a trial on stored features the step is its head's, and evaluation the pass of an image through
    the backbone. together: seconds of a step of each of `head_timing.TOGETHER` heads that train together, None
    where they cannot. stacked: of a step of each of `stack_timing.STACKED` trials whose models train as one, as alone
    where they cannot; None where that was not timed. scoring: of evaluating the head on the validation images.
    scaled: from another kind's timing, by their arithmetic. taken: when, seconds since 1970; load: cores that other
    work took then, see `machine.cores`. None in what earlier versions kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: float
    evaluation: float
    together: float | None = None
    stacked: float | None = None
    scoring: float = 0.0
    scaled: bool = False
    taken: float | None = None
    load: float | None = None


def timed_images(images: int, gflops: float, options: RunOptions) -> int:
    """Return how many of a batch's images are timed. gflops: of a forward pass of each, in 1e9."""
    if resolve_device(options.device).type != "cpu":
        return images
    # Batch statistics need two.
    return min(images, max(2, int(TIMED_GFLOPS / gflops)))


Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """Return what seconds of work on a device are read from.

    Where one thread of the CPU does it all, these are the seconds that it computed: beside other work it waits for as
    long again. Several threads wait for one another, and for a GPU, so that only the clock on the wall tells.
    """
    is_alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if is_alone else time.perf_counter


def least_seconds(call: Callable[[], object], *, warm_up: int, repeats: int, clock: Clock = time.perf_counter) -> float:
    """Return the least seconds of some calls, after some that do not count: other work can only add to them."""
    seconds: list[float] = []
    for _ in range(warm_up + repeats):
        started = clock()
        call()
        seconds.append(clock() - started)
        if len(seconds) > warm_up and sum(seconds) > LONGEST_TIMING:
            break
    return min(seconds[warm_up:])
