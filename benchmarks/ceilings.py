"""What the hardware can do at most, measured: matrix products per second and bytes moved per second."""

import statistics
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

import torch


@dataclass(frozen=True)
class Ceilings:
    """Best FLOP/s of a square matrix product in each precision, and bytes/s of a scaled sum, read and written."""

    float32: float
    bfloat16: float
    bandwidth: float


def timed(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of one call, the device's work included, and seconds of processor time it took in this process."""
    started, worked = time.perf_counter(), time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, time.process_time() - worked


def best_and_median(call: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Seconds of the fastest and the middle call of `repeats`, after two that do not count."""
    for _ in range(2):
        timed(call, device)
    seconds = [timed(call, device)[0] for _ in range(repeats)]
    return min(seconds), statistics.median(seconds)


def measure_ceilings(device: torch.device, *, repeats: int = 15) -> Ceilings:
    """The best of `repeats`: other work on the machine can only hide what the hardware does, never add to it."""
    edge = 8192 if device.type == "cuda" else 1024
    peak = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
        seconds = best_and_median(lambda left=left, right=right: left @ right, device, repeats)[0]  # type: ignore[misc]
        peak[dtype] = 2 * edge**3 / seconds
    numbers = torch.zeros(2 ** (28 if device.type == "cuda" else 25), device=device)
    other = torch.ones_like(numbers)
    seconds = best_and_median(lambda: torch.add(numbers, other, alpha=0.5, out=other), device, repeats)[0]
    return Ceilings(peak[torch.float32], peak[torch.bfloat16], 3 * numbers.nbytes / seconds)


def best_of(one: Ceilings, other: Ceilings) -> Ceilings:
    """The higher figure of each kind."""
    return Ceilings(*map(max, astuple(one), astuple(other)))
