"""What was timed on this device, and the file in which it is kept per device and version."""

import contextlib
import functools
import hashlib
import json
import tempfile
from collections.abc import Collection
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from raypatch.config import RunOptions
from raypatch.machine.environment import cache_folder
from raypatch.machine.runtime import provenance, resolve_device
from raypatch.storage.files import write_atomically
from raypatch.sweep.cost.seconds.timing import Timing, least_seconds
from raypatch.training.checkpoints.checkpoint import Progress, save_tensors


class Calibration(BaseModel):
    """What was timed on one device with one set of versions; disk: bytes/s of writing a checkpoint."""

    model_config = ConfigDict(extra="forbid")

    machine: dict[str, str]
    disk: float
    timings: dict[str, Timing] = {}


def known_calibration(options: RunOptions) -> Calibration | None:
    """What was timed on this device before; None where nothing was."""
    path, machine = _cache(options)
    try:
        found = _parse(path, path.stat().st_mtime_ns)
    except (OSError, ValidationError):
        return None
    # The file's name holds 12 digits of a digest only: its content decides.
    return found if found.machine == machine else None


def start_calibration(options: RunOptions, *, forget: Collection[str] = ()) -> Calibration:
    """A calibration to add timings to, with what is known but for the kinds to be forgotten.

    How fast the disk is, is timed with the first kinds, and whenever some are forgotten.
    """
    known = known_calibration(options)
    if known is None:
        _, machine = _cache(options)
        return Calibration(machine=machine, disk=_time_disk(), timings={})
    # A copy: what was read is shared by all who ask, and is not changed.
    timings = {kind: timing for kind, timing in known.timings.items() if kind not in forget}
    disk = _time_disk() if forget else known.disk
    return Calibration(machine=known.machine, disk=disk, timings=timings)


def keep_calibration(calibration: Calibration, options: RunOptions) -> None:
    """Write a calibration down; without a place for it, the next one takes its time again."""
    path, _ = _cache(options)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, calibration.model_dump_json(indent=1).encode())


def _time_disk() -> float:
    weights = torch.zeros(2**24)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        tensors = {"weights": weights}
        seconds = least_seconds(lambda: save_tensors(path, tensors, Progress()), warm_up=0, repeats=3)
    return weights.nbytes / seconds


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


@functools.cache
def _parse(path: Path, _mtime_ns: int) -> Calibration:
    return Calibration.model_validate_json(path.read_bytes())
