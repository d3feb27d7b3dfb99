"""What Ray costs per trial over the in-process executor, and what 216 empty trials take.

    python benchmarks/ray_overhead.py [--trials 24] [--out benchmarks/results/ray_overhead.json]

The cost per trial is the slope between a short and a long sweep of the same small trials, so that start-up drops out.
An empty trial is one that is found finished: all that remains is Ray's scheduling.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.runtime import provenance
from raypatch.results import SweepPaths
from raypatch.storage.own_files import own_file_id
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.local import LocalExecutor
from raypatch.sweep.session import ExecutorOptions, Session, Work
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.watch.running import RunningSweep


def _make_images(path: Path) -> Path:
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 64), ("val", 16), ("test", 16)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(path, **arrays)
    return path


def _trials(data: Path, count: int) -> tuple[list[TrialConfig], RunOptions]:
    identity = own_file_id(data)
    fields = {"dataset": identity, "model": "test_vit", "weights": "random", "patch_size": 7, "epochs": 3}
    trials = [TrialConfig.model_validate(fields | {"seed": seed}) for seed in range(count)]
    return trials, RunOptions(device="cpu", files={identity: data}, threads=1)


def _run(trials: list[TrialConfig], options: RunOptions, folder: Path, executor: str) -> float:
    """Seconds of a sweep, Ray's start-up left out."""
    paths = SweepPaths(folder)
    paths.trials.mkdir(parents=True, exist_ok=True)
    listener = RunningSweep(trials, {config.trial_id(): 1.0 for config in trials}, done=0, side_by_side=1)
    session = Session(paths, options, ExecutorOptions(retries=0), StopRequest(paths.stop))
    work = Work([(config,) for config in trials], Placement(1, 0.0, 1), listener)
    if executor == "local":
        began = time.perf_counter()
        LocalExecutor(session).run(work)
        return time.perf_counter() - began
    from raypatch.sweep.executors.tuner import run_on_ray
    from raypatch.sweep.services.ray_setup import local_ray

    with local_ray(cpus=1, gpus=0) as storage:
        began = time.perf_counter()
        run_on_ray(session, work, storage)
        return time.perf_counter() - began


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3, help="Of both executors in turn; medians are reported.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ray_overhead.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = _make_images(Path(folder) / "noise.npz")
        few, many = arguments.trials // 6, arguments.trials
        slopes: dict[str, list[float]] = {"local": [], "ray": []}
        for repeat in range(arguments.repeats):
            for executor, found in slopes.items():
                seconds = {}
                for count in (few, many):
                    trials, options = _trials(data, count)
                    seconds[count] = _run(trials, options, Path(folder) / f"{executor}{count}-{repeat}", executor)
                found.append((seconds[many] - seconds[few]) / (many - few))
        slope = {executor: statistics.median(found) for executor, found in slopes.items()}
        trials, options = _trials(data, 216)
        finished = Path(folder) / "empty"
        done, _ = _trials(data, 1)
        _run(done, options, finished, "local")
        source = SweepPaths(finished).trial(done[0].trial_id()).result.read_text()
        for config in trials[1:]:
            paths = SweepPaths(finished).trial(config.trial_id())
            paths.folder.mkdir()
            paths.result.write_text(source.replace(done[0].trial_id(), config.trial_id()))
        empty = _run(trials, options, finished, "ray")
    result = {
        "seconds_per_trial": slope,
        "seconds_per_trial_of_each_repeat": slopes,
        "ray_cost_per_trial_seconds": slope["ray"] - slope["local"],
        "empty_trials": len(trials),
        "empty_trials_seconds": empty,
        "driver_gigabytes": psutil.Process().memory_info().rss / 1e9,
        "load_average": os.getloadavg(),
        "provenance": provenance(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "provenance"}, indent=1))


if __name__ == "__main__":
    main()
