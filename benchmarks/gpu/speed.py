"""How fast training is on the device: against the customary loop, and for the whole patch-size study."""

import statistics
import sys
import time
from pathlib import Path

import torch
from cases import clean, make_case
from report import Report

from raypatch.config import RunOptions
from raypatch.study import Study
from raypatch.study.files import load_study
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.cost.estimate import plan_cost

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""bfloat16 products per second without sparsity, by the maker's sheets."""

ROUNDS = 5


def against_customary(report: Report) -> None:
    """The rows of benchmarks/training_speed.py: medians of five rounds."""
    from training_speed import CASES, Pair, compare

    model = "test_vit" if report.tiny else "vit_small_patch16_224"
    for case in ("2d-14", "3d-14") if report.tiny else CASES["cuda"].split(","):
        clean(report.device)
        pair = Pair(case, model, 8, 2 if report.tiny else 10, report.device, compiled=False)
        row = compare(pair, ROUNDS)
        shown = {
            name: row[name] for name in ("case", "precision", "images_per_second", "train_ratio", "evaluate_ratio")
        }
        report.line("against the customary loop", None, **shown)
        del pair


def largest_volume(report: Report) -> None:
    """Patch 1 in 3D, where the device's products are the limit: at least 40 % of its peak."""
    clean(report.device)
    batch = 8 if report.on_cuda and not report.tiny else 2
    case = make_case(report, 3, 4 if report.tiny else 1, batches=1, batch_size=batch, lr=1e-5)
    step = case.step()
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        step(*case.batches[0]).item()
        seconds.append(time.perf_counter() - started)
    flops = 3e9 * case.prepared.facts.gflops * batch / statistics.median(seconds[1:])
    name = torch.cuda.get_device_name(report.device) if report.on_cuda else "cpu"
    peak = next((flops for known, flops in PEAK_FLOPS.items() if known in name), None)
    share = None if peak is None else flops / peak
    ok = None if share is None or report.tiny else share >= 0.4
    report.line("largest volume", ok, ms=1e3 * statistics.median(seconds[1:]), tflops=flops / 1e12, of_peak=share)


def compiled_against_eager(report: Report) -> None:
    """Many tokens, of which no step is recorded: what compiling gains a step, what it takes to start, and its loss."""
    clean(report.device)
    case = make_case(report, 3, 4 if report.tiny else 2, batches=4)
    eager, compiled = case.step(recorded=False), case.twin().step(recorded=False, compiled=True)
    losses: dict[str, list[float]] = {"eager": [], "compiled": []}
    seconds: dict[str, list[float]] = {"eager": [], "compiled": []}
    for batch in case.batches:
        for name, step in (("eager", eager), ("compiled", compiled)):
            started = time.perf_counter()
            losses[name].append(step(*batch).item())
            seconds[name].append(time.perf_counter() - started)
    ok = all(abs(one - other) <= 0.02 * abs(one) for one, other in zip(*losses.values(), strict=True))
    ms = {name: 1e3 * statistics.median(each[1:]) for name, each in seconds.items()}
    report.line("compiled against eager", ok, ms=ms, start=seconds["compiled"][0], losses=losses)


def whole_grid(report: Report) -> None:
    """Hours of the patch-size study's 216 trials one after another, by steps measured here: at most 12."""
    clean(report.device)
    study = load_study("grid")
    if report.tiny:
        fixed = {"model": "test_vit", "weights": "random", "epochs": 2}
        grid = {"dataset": ["phantom2d"], "patch_size": [28, 14], "seed": [0]}
        study = Study.model_validate({"name": "tiny", "compare": "patch_size", "fixed": fixed, "grid": grid})
    said: list[str] = []
    options = RunOptions(device=str(report.device))
    rows = plan_cost(resolve_trials(study), options, said.append, recalibrate=True)
    hours = sum(row.seconds for row in rows) / 3600
    by_patch: dict[str, float] = {}
    for row in rows:
        kind = f"{'3d' if row.dataset.endswith('3d') else '2d'} p{row.levels['patch_size']}"
        by_patch[kind] = by_patch.get(kind, 0.0) + row.seconds / 3600
    ok = None if report.tiny or not report.on_cuda else hours <= 12
    report.line("whole grid", ok, hours=hours, by_patch=by_patch, trials=sum(row.trials for row in rows), said=said)
