"""Whether the engine does on a device what it does elsewhere."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import torch
from cases import Case, clean, losses_of, make_batches, make_case, patches
from report import Report

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import dataset_info
from raypatch.machine.runtime import provenance
from raypatch.models import memory
from raypatch.models.flops import model_facts
from raypatch.models.prepared import evaluation_batch
from raypatch.results import EpochRow, TrialPaths, read_epochs
from raypatch.training.optim import set_learning_rates
from raypatch.training.steps.step import WARM_UP_STEPS
from raypatch.trial import train_trial

ALIKE = 0.05
"""Losses may differ by so much of their size: rounding that is carried through a few steps."""


class _KilledError(Exception):
    """Ends a trial as a kill would."""


def environment(report: Report) -> None:
    """What this ran on."""
    report.line("environment", None, **provenance(), torch_cuda=torch.version.cuda)


def recorded_against_eager(report: Report) -> None:
    """The losses of recorded steps are those of eager ones, with a changed rate and a short batch in between."""
    for dimensions in (2, 3):
        for patch in patches(report, dimensions)[:3]:
            clean(report.device)
            eager = make_case(report, dimensions, patch, batches=WARM_UP_STEPS + 6)
            steps = [eager.step(recorded=False), eager.twin().step(recorded=True)]
            found: list[list[float]] = [[], []]
            for number, (images, labels, parameters) in enumerate(eager.batches):
                size = 5 if number == WARM_UP_STEPS + 2 else len(images)
                rest = None if parameters is None else parameters[:size]
                for step, losses in zip(steps, found, strict=True):
                    losses.append(step(images[:size], labels[:size], rest).item())
                    set_learning_rates(step.optimizer, [1e-4 / (number + 1)] * 2)
            worst = _worst(found[0], found[1])
            was_recorded = steps[1]._recorded is not None
            ok = worst < ALIKE and was_recorded
            case = f"{dimensions}d p{patch}"
            report.line("recorded against eager", ok, case=case, worst=worst, recorded=was_recorded)


def rounded_against_exact(report: Report) -> None:
    """The losses in bfloat16 stay near those in float32, and training learns in both."""
    for dimensions in (2, 3):
        clean(report.device)
        patch = patches(report, dimensions)[1]
        case = make_case(report, dimensions, patch, batches=12 if report.tiny else 30)
        exact = losses_of(case.twin(precision="float32").step(recorded=False), case.batches)
        rounded = losses_of(case.twin(precision="bfloat16").step(recorded=False), case.batches)
        near = _worst(exact[:5], rounded[:5])
        report.line(
            "bfloat16 against float32",
            near < ALIKE,
            case=f"{dimensions}d p{patch}",
            worst_of_first_5=near,
            last=(exact[-1], rounded[-1]),
        )


def out_of_memory(report: Report) -> None:
    """A step and an evaluation for which there is too little memory go on with smaller batches."""
    clean(report.device)
    patch = patches(report, 3)[-2]
    case = make_case(report, 3, patch, batches=2, batch_size=8 if report.tiny else 16)
    if report.tiny or not report.on_cuda:
        report.line("out of memory", None, skipped="needs a device, and what fills it")
        return
    half = memory.training_bytes(case.config, case.prepared.facts, case.prepared.precision, micro_batch=8)
    total = torch.cuda.get_device_properties(report.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.2 * half / total), report.device)
    try:
        step = case.step()
        losses = losses_of(step, case.batches)
        logits = case.prepared.logits(case.batches[0][0])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, report.device)
    finite = all(np.isfinite(losses)) and bool(logits.isfinite().all())
    ok = finite and step.micro_batch < case.config.batch_size
    report.line("out of memory", ok, case=f"3d p{patch}", micro_batch=step.micro_batch, losses=losses)


def resume(report: Report) -> None:
    """A trial that is killed after its second epoch and goes on ends near the one that was left alone."""
    clean(report.device)
    config, options = _small_trial(report)

    def die(row: EpochRow) -> None:
        if row.epoch == 2:
            raise _KilledError

    with tempfile.TemporaryDirectory() as folder:
        ends: list[list[float]] = []
        for name in ("straight", "killed"):
            paths = TrialPaths(Path(folder, name))
            paths.folder.mkdir()
            if name == "killed":
                with contextlib.suppress(_KilledError):
                    train_trial(config, paths, options, on_epoch=die)
            train_trial(config, paths, options)
            ends.append([row.val["loss"] for row in read_epochs(paths.epochs)])
    worst = _worst(ends[0], ends[1])
    ok = len(ends[1]) == config.epochs and (worst < ALIKE if report.on_cuda else worst == 0)
    report.line("resume", ok, worst=worst, losses=ends)


def planned_memory(report: Report) -> None:
    """What is reserved on the device is never over the plan, and the plan at most a quarter over that."""
    places = (("dermamnist", 2, (28, 7, 4, 1)), ("adrenalmnist3d", 3, (28, 7, 4, 2)))
    for dataset, dimensions, sizes in places:
        if report.tiny or not report.on_cuda:
            report.line("planned memory", None, skipped="needs a device's allocator, and what fills it")
            return
        for patch in sizes:
            clean(report.device)
            case = make_case(report, dimensions, patch, batches=WARM_UP_STEPS + 3)
            _measure_memory(report, case, dataset)


def _measure_memory(report: Report, case: Case, dataset: str) -> None:
    info = dataset_info(dataset)
    config, prepared, device = case.config, case.prepared, report.device
    facts = model_facts(config, dimensions=info.dimensions, outputs=len(info.classes))
    recorded = memory.is_recorded(config, facts, config.batch_size)
    how = {"micro_batch": config.batch_size, "recorded": recorded}
    planned = memory.peak_bytes(config, info, facts, prepared.precision, **how)  # type: ignore[arg-type]
    shape = (info.channels, *(info.size,) * info.dimensions)
    splits = [torch.zeros(count, *shape, dtype=torch.uint8, device=device) for count in info.counts]
    step = case.step()
    losses_of(step, case.batches)
    # The last batch of an epoch is shorter.
    rest = info.counts[0] % config.batch_size or config.batch_size
    images, labels, parameters = make_batches(config, info.dimensions, 1, device)[0]
    step(images[:rest], labels[:rest], None if parameters is None else parameters[:rest])
    evaluated = 2 * evaluation_batch(facts.tokens, config.image_size**info.dimensions)
    prepared.logits(max(splits[1:], key=len)[:evaluated])
    reserved = torch.cuda.max_memory_reserved(device)
    report.line(
        "planned memory",
        reserved <= planned <= 1.25 * reserved,
        case=f"{dataset} p{config.patch_size}",
        planned_mib=planned >> 20,
        reserved_mib=reserved >> 20,
        allocated_mib=torch.cuda.max_memory_allocated(device) >> 20,
        recorded=step._recorded is not None,
        planned_over_reserved=planned / reserved,
    )


def _small_trial(report: Report) -> tuple[TrialConfig, RunOptions]:
    """Four epochs on a few made images."""
    values: dict[str, object] = {"dataset": "phantom2d", "model": "test_vit", "weights": "random", "patch_size": 14}
    config = TrialConfig.model_validate(values | {"train_fraction": 0.1, "epochs": 4, "batch_size": 8, "lr": 1e-3})
    return config, RunOptions(device=str(report.device))


def _worst(one: list[float], other: list[float]) -> float:
    """The largest difference, as a share of the larger of the two, or of 1."""
    differences = [abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in zip(one, other, strict=True)]
    return max(differences, default=0.0)
