"""What `raypatch plan` says a trial costs beside what it then takes: seconds, and on a GPU its peak memory.

    python benchmarks/plan_accuracy.py                       ViT-S, every patch size that is feasible here
    python benchmarks/plan_accuracy.py --cases 2d-28,3d-14   some of them

Noise images of the size of MedMNIST's; as many epochs as the plan expects to take --seconds. The calibration is made
anew. Measured is the whole trial: start, training, validation, checkpoints, test. Writes
benchmarks/results/plan_accuracy-<device>.json.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from training_speed import CASES

from raypatch.config import RunOptions
from raypatch.machine.runtime import provenance, resolve_device
from raypatch.results import SweepPaths, read_result
from raypatch.study import Study
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.cost.estimate import PlanRow, plan_cost
from raypatch.sweep.run import ExecutorOptions, run_sweep

COUNTS = {"train": 160, "val": 80, "test": 160}


def write_noise(path: Path, *, dimensions: int) -> None:
    """Write noise images (28, 28, 3) or (28, 28, 28) of two classes."""
    random = np.random.default_rng(0)
    shape = (28, 28, 3) if dimensions == 2 else (28, 28, 28)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(path, **arrays)


def compare(case: str, model: str, seconds: float, options: RunOptions, work: Path) -> dict[str, Any]:
    """Plan one trial, run it, and give both costs."""
    dimensions, patch_size = int(case[0]), int(case.split("-")[1])
    data = work / f"noise{dimensions}d.npz"
    if not data.exists():
        write_noise(data, dimensions=dimensions)
    fixed = {"dataset": str(data), "model": model, "weights": "random", "patch_size": patch_size, "batch_size": 8}

    def plan(epochs: int) -> tuple[Study, PlanRow]:
        space = Study.model_validate({"name": "noise", "fixed": {**fixed, "epochs": epochs}})
        (row,) = plan_cost(resolve_trials(space), options, say=lambda text: None)
        return space, row

    space, row = plan(max(1, math.ceil(seconds / plan(1)[1].seconds)))
    started = time.perf_counter()
    run_sweep(space, work / case, options, ExecutorOptions(executor="local"))
    measured = time.perf_counter() - started
    (trial,) = SweepPaths(work / case).trial_folders()
    result = read_result(trial.result)
    assert result is not None
    assert result.status == "ok", result.error
    found = {"case": case, "epochs": result.epochs, "precision": result.precision, "planned_seconds": row.seconds}
    found |= {"measured_seconds": measured, "seconds_ratio": measured / row.seconds}
    if options.device != "cpu":
        found |= {"planned_bytes": row.cost.memory_bytes, "measured_bytes": result.peak_memory_bytes}
        found["bytes_ratio"] = result.peak_memory_bytes / row.cost.memory_bytes
    return found


def main() -> None:
    """Compare each case once and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cases", help="such as 2d-28,3d-14; default: all that are feasible on the device")
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a trial should take by the plan")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device).type
    loads, rows = os.getloadavg(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # an earlier calibration would be read from there
        for case in (arguments.cases or CASES[device]).split(","):
            row = compare(case, arguments.model, arguments.seconds, RunOptions(device=device), Path(folder))
            print(json.dumps(row), flush=True)
            rows.append(row)
    content = {"model": arguments.model, "threads": torch.get_num_threads(), "load_before": loads, "rows": rows}
    content |= {"load_after": os.getloadavg(), "provenance": provenance()}
    out = Path(__file__).parent / "results" / f"plan_accuracy-{device}.json"
    out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
