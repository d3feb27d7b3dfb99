"""What a trial will cost on this device: seconds from a short calibration, kept per device and version, and memory."""

import contextlib
import functools
import hashlib
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from raypatch.checkpoint import Progress, save_tensors
from raypatch.config import RunOptions, TrialConfig
from raypatch.data.augment import draw_parameters
from raypatch.data.source import describe
from raypatch.evaluate import predict_logits
from raypatch.files import write_atomically
from raypatch.models.build import build_model, set_training_mode
from raypatch.models.flops import model_facts
from raypatch.models.memory import available_bytes, choose_micro_batch, evaluation_batch, fit_memory, peak_bytes
from raypatch.optim import make_optimizer
from raypatch.results import ModelFacts
from raypatch.runtime import provenance, resolve_device, resolve_precision
from raypatch.search_settings import SearchSettings
from raypatch.step import WARM_UP_STEPS, TrainingStep

LONGEST_STEP = 4.0
"""Seconds: a step expected to take longer is not timed but scaled, by its arithmetic, from the longest that was."""

TIMED_STEPS = 5

BUSY_LOAD = 0.5
"""Processes per core that want to run, over the last minute, from which on a calibration is not to be trusted."""


class Timing(BaseModel):
    """Seconds of one optimizer step and of evaluating one image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: float
    evaluation: float


class Calibration(BaseModel):
    """What was timed on one device with one set of versions; disk: bytes/s of writing a checkpoint."""

    model_config = ConfigDict(extra="forbid")

    machine: dict[str, str]
    disk: float
    timings: dict[str, Timing] = {}


class PlanRow(BaseModel):
    """One dataset at one patch size: what its trials cost. memory_bytes: peak on the device. seconds: all trials."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    patch_size: int
    trials: int
    tokens: int
    parameters: int
    gflops: float
    micro_batch: int
    checkpointing: bool
    memory_bytes: int
    seconds: float


def plan_cost(
    trials: Iterable[TrialConfig], options: RunOptions, say: Callable[[str], object], *, recalibrate: bool = False
) -> list[PlanRow]:
    """Cost of the trials per dataset and patch size, calibrating what is not yet known. say: told what is timed.

    recalibrate: time what is known, too. Starts no training. Raises ValueError for wrong input.
    """
    groups: dict[tuple[str, int], list[TrialConfig]] = {}
    for config in trials:
        groups.setdefault((config.dataset_label, config.patch_size), []).append(config)
    every = [config for group in groups.values() for config in group]
    calibration = calibrate(every, options, say, again=recalibrate)
    return [_plan_row(group, options, calibration) for group in groups.values()]


def _plan_row(group: Sequence[TrialConfig], options: RunOptions, calibration: Calibration) -> PlanRow:
    config, device = group[0], resolve_device(options.device)
    facts = _facts(config, options)
    precision = resolve_precision(config.precision, device)
    micro_batch, checkpointing = choose_micro_batch(config, facts, precision, available_bytes(device))
    if options.micro_batch != "auto":
        micro_batch, checkpointing = options.micro_batch, False
    info = describe(config.dataset, data_dir=options.data_dir, files=options.files)
    memory = peak_bytes(config, info, facts, precision, micro_batch=micro_batch, checkpointing=checkpointing)
    return PlanRow(
        dataset=config.dataset_label,
        patch_size=config.patch_size,
        trials=len(group),
        tokens=facts.tokens,
        parameters=facts.parameters,
        gflops=facts.gflops,
        micro_batch=micro_batch,
        checkpointing=checkpointing,
        memory_bytes=memory,
        seconds=sum(_seconds(each, options, calibration) for each in group),
    )


def of_search(row: PlanRow, settings: SearchSettings) -> PlanRow:
    """The row of a search's group: all its samples, in at most the share of their epochs that its budget allows.

    A searched field that changes the cost, such as the batch size, counts with the first of its values.
    """
    share = 1.0 if settings.pruner == "none" else settings.budget
    return row.model_copy(
        update={"trials": settings.samples * row.trials, "seconds": share * settings.samples * row.seconds}
    )


def as_table(rows: Sequence[PlanRow]) -> str:
    """Rows as text, with the sum in hours beneath; the estimates are marked with ~."""
    head = f"{'dataset':<18}{'patch':>6}{'trials':>7}{'tokens':>8}{'parameters':>12}{'GFLOPs':>10}"
    lines = [head + f"{'micro-batch':>12}{'~GiB':>8}{'~hours':>9}"]
    for row in rows:
        line = f"{row.dataset:<18}{row.patch_size:>6}{row.trials:>7}{row.tokens:>8,}{row.parameters:>12,}"
        parts = f"{row.micro_batch}{'*' if row.checkpointing else ''}"
        line += f"{row.gflops:>10.4g}{parts:>12}{row.memory_bytes / 2**30:>8.1f}{row.seconds / 3600:>9.3f}"
        lines.append(line)
    lines.append(f"{sum(row.trials for row in rows)} trials, about {sum(row.seconds for row in rows) / 3600:.2f} hours")
    if any(row.checkpointing for row in rows):
        lines.append("* with activation checkpointing")
    return "\n".join(lines)


def as_json(rows: Sequence[PlanRow]) -> str:
    """Rows and sums as JSON."""
    total = {"trials": sum(row.trials for row in rows), "hours": sum(row.seconds for row in rows) / 3600}
    return json.dumps({"rows": [row.model_dump() for row in rows], **total}, indent=1)


def known_seconds(config: TrialConfig, options: RunOptions) -> float | None:
    """Estimated seconds of a trial from an earlier calibration on this device; None where there is none."""
    calibration = _read(*_cache(options))
    if calibration is None or _shape(config, options) not in calibration.timings:
        return None
    return _seconds(config, options, calibration)


def _seconds(config: TrialConfig, options: RunOptions, calibration: Calibration) -> float:
    info = describe(config.dataset, data_dir=options.data_dir, files=options.files)
    timing = calibration.timings[_shape(config, options)]
    train, val, test = info.counts
    trained = 3 if config.method == "finetune" else 1  # copies of the weights in a checkpoint: with Adam's two moments
    epoch = math.ceil(train * config.train_fraction / config.batch_size) * timing.step + val * timing.evaluation
    epoch += trained * 4 * _facts(config, options).parameters / calibration.disk
    return config.epochs * epoch + (val + test) * timing.evaluation


def calibrate(
    trials: Sequence[TrialConfig], options: RunOptions, say: Callable[[str], object], *, again: bool = False
) -> Calibration:
    """Time a few steps on made images for each kind of trial that is not yet known, cheapest first; keep the result.

    again: also for those that are known. say: told what is timed, and when other work on the machine falsifies it.
    """
    path, machine = _cache(options)
    kinds = {_shape(config, options): config for config in trials}
    calibration = _read(path, machine) or Calibration(machine=machine, disk=_time_disk())
    if again:
        kept = {shape: timing for shape, timing in calibration.timings.items() if shape not in kinds}
        calibration = Calibration(machine=machine, disk=_time_disk(), timings=kept)
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > BUSY_LOAD * cores and not kinds.keys() <= calibration.timings.keys():
        say(
            f"other work runs here (load {load:.1f} on {cores} cores): times will be too long;"
            " `raypatch plan --recalibrate` takes them anew"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    longest: tuple[float, Timing] | None = None  # arithmetic of the last step, and what it takes
    for shape, config in sorted(kinds.items(), key=lambda item: _step_flops(item[1], options)):
        flops = _step_flops(config, options)
        timing = calibration.timings.get(shape)
        if timing is None:
            scale = flops / longest[0] if longest else 1.0
            if longest and scale * longest[1].step > LONGEST_STEP:
                timing = Timing(step=scale * longest[1].step, evaluation=scale * longest[1].evaluation)
            else:
                say(f"timing {shape}")
                timing = time_trial(config, options)
            calibration.timings[shape] = timing
            with contextlib.suppress(OSError):  # no place to keep it costs the time of the next calibration
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, calibration.model_dump_json(indent=1).encode())
        longest = flops, timing
    return calibration


def time_trial(config: TrialConfig, options: RunOptions) -> Timing:
    """Time a training step and the evaluation of an image, on noise shaped like the trial's images."""
    device = resolve_device(options.device)
    info = describe(config.dataset, data_dir=options.data_dir, files=options.files)
    facts = _facts(config, options)
    precision = resolve_precision(config.precision, device)
    made = config.model_copy(update={"weights": "random"})
    built = build_model(made, dimensions=info.dimensions, outputs=len(info.classes), files={})
    model = built.model.to(device)
    mean, std = (torch.tensor(values, device=device) for values in (built.mean, built.std))
    shape = (config.image_size,) * info.dimensions
    count = max(config.batch_size, min(64, evaluation_batch(facts.tokens, math.prod(shape))))
    images = torch.randint(0, 256, (count, info.channels, *shape), dtype=torch.uint8).to(device)
    many = info.task == "multilabel"
    labels = torch.zeros((config.batch_size, len(info.classes)) if many else (config.batch_size,), dtype=torch.int64)
    parameters = draw_parameters(config.batch_size, shape, torch.Generator(), mirror_safe=True).to(device)
    batch = images[: config.batch_size], labels.to(device), parameters if config.augmentation == "paper" else None
    step = TrainingStep(
        model,
        make_optimizer(model, config),
        task=info.task,
        mean=mean,
        std=std,
        precision=precision,
        tokens=facts.tokens,
        batch_size=config.batch_size,
        micro_batch=fit_memory(model, config, facts, precision, device, options.micro_batch),
        fixed_buffers=device.type == "cuda",
    )

    def evaluate() -> object:
        return predict_logits(
            model, images, device=device, tokens=facts.tokens, mean=mean, std=std, precision=precision
        ).cpu()

    evaluation = _median_seconds(evaluate, warm_up=1, repeats=3) / count
    set_training_mode(model, config)
    warm_up = WARM_UP_STEPS + 2 if device.type == "cuda" else 1
    return Timing(
        step=_median_seconds(lambda: step(*batch).item(), warm_up=warm_up, repeats=TIMED_STEPS), evaluation=evaluation
    )


def _median_seconds(call: Callable[[], object], *, warm_up: int, repeats: int) -> float:
    seconds = []
    for _ in range(warm_up + repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[warm_up:])


def _time_disk() -> float:
    weights = torch.zeros(2**24)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        seconds = _median_seconds(lambda: save_tensors(path, {"weights": weights}, Progress()), warm_up=0, repeats=3)
    return weights.nbytes / seconds


def _facts(config: TrialConfig, options: RunOptions) -> ModelFacts:
    info = describe(config.dataset, data_dir=options.data_dir, files=options.files)
    return model_facts(config, dimensions=info.dimensions, outputs=len(info.classes))


def _step_flops(config: TrialConfig, options: RunOptions) -> float:
    return config.batch_size * _facts(config, options).gflops


def _shape(config: TrialConfig, options: RunOptions) -> str:
    """What a step's duration depends on, as text: trials that agree in it share a timing."""
    info = describe(config.dataset, data_dir=options.data_dir, files=options.files)
    parts: list[Any] = [config.model, f"{info.dimensions}D", config.image_size, f"p{config.patch_size}"]
    parts += [f"batch {config.batch_size}", f"micro {options.micro_batch}", config.method, config.optimizer]
    parts += [config.precision, config.augmentation]
    return " ".join(map(str, parts))


def _cache(options: RunOptions) -> tuple[Path, dict[str, str]]:
    """Where the calibration of this device, with these versions and threads, is kept, and what names it."""
    return _cache_of(options.device, options.threads or torch.get_num_threads())


@functools.cache
def _cache_of(device: str, threads: int) -> tuple[Path, dict[str, str]]:
    resolved = resolve_device(device)
    found = provenance()
    names = ["raypatch", "torch", "timm", *(["gpu", "cuda"] if resolved.type == "cuda" else ["cpu"])]
    machine = {name: found[name] for name in names} | {"device": resolved.type}
    if resolved.type == "cpu":
        machine["threads"] = str(threads)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:12]
    return root / "raypatch" / f"calibration-{digest}.json", machine


def _read(path: Path, machine: dict[str, str]) -> Calibration | None:
    try:
        found = Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.machine == machine else None
