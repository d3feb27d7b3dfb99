"""What a sweep will cost on this device: seconds from a short calibration, and memory, per dataset and patch size."""

import json
import math
from collections.abc import Callable, Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from raypatch.config import RunOptions, TrialConfig
from raypatch.methods import find_method
from raypatch.models.flops import trial_facts
from raypatch.models.memory import available_bytes, choose_micro_batch, peak_bytes
from raypatch.runtime import resolve_device, resolve_precision
from raypatch.search_settings import SearchSettings
from raypatch.sweep.cost.calibration import Calibration, calibrate, known_calibration, step_kind


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
    info, facts = trial_facts(config, options)
    precision = resolve_precision(config.precision, device)
    micro_batch, checkpointing = choose_micro_batch(config, facts, precision, available_bytes(device))
    if options.micro_batch != "auto":
        micro_batch, checkpointing = options.micro_batch, False
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
        line += f"{row.gflops:>10.4g}{parts:>12}{row.memory_bytes / 2**30:>8.2f}{row.seconds / 3600:>9.3f}"
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
    calibration = known_calibration(options)
    if calibration is None or step_kind(config, options) not in calibration.timings:
        return None
    return _seconds(config, options, calibration)


def _seconds(config: TrialConfig, options: RunOptions, calibration: Calibration) -> float:
    info, facts = trial_facts(config, options)
    timing = calibration.timings[step_kind(config, options)]
    train, val, test = info.counts
    copies = find_method(config.method).weight_copies
    epoch = math.ceil(train * config.train_fraction / config.batch_size) * timing.step + val * timing.evaluation
    epoch += copies * 4 * facts.parameters / calibration.disk
    return config.epochs * epoch + (val + test) * timing.evaluation
