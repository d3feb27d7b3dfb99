"""How a sweep's duration falls with the nodes of a cluster, and what a long queue costs.

    python benchmarks/cluster_scaling.py [--seconds 15] [--repeats 3] [--out benchmarks/results/cluster_scaling.json]

Trials sleep in place of training, so that the cores of this machine do not decide; everything else is the executor as
a sweep uses it. Nodes are simulated: processes on this machine, one slot each. Their start is left out, the executor's
and its workers' is not.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import psutil

from raypatch.sweep.services import ray_setup  # noqa: F401 - makes the settings that ray reads when it is imported

# isort: split
import ray
from ray.cluster_utils import Cluster
from ray.tune import PlacementGroupFactory
from ray.tune.trainable import wrap_function

from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.runtime import provenance
from raypatch.results import EpochRow, SweepPaths
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.cluster import ClusterExecutor
from raypatch.sweep.executors.tuner import Reports
from raypatch.sweep.session import ExecutorOptions, Session, Work
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.watch.running import RunningSweep

TRIALS = 24
NODES = (1, 2, 4)
QUEUES = (216, 1000, 3000, 10000)
FIRST_TRIALS = 30
"""Trials of a long queue that are run before it is stopped."""

DRAINED = 3000
"""Trials of a queue that is run to its end: does each cost more, the more are over?"""


def _sleep(config: dict[str, Any]) -> None:
    trial = TrialConfig.model_validate(config["spec"]["trials"][0])
    epochs, reports = trial.epochs, Reports(every_seconds=0)
    for epoch in range(1, epochs + 1):
        time.sleep(float(Path(config["spec"]["folder"], "seconds").read_text()) / epochs)
        val = {"loss": 0.5, "auc": 0.5}
        row = EpochRow(epoch=epoch, train_loss=0.5, val=val, lr=1e-3, seconds=1.0, images_per_second=1.0)
        reports.add(trial.trial_id(), row)


class SleepTrial(wrap_function(_sleep)):
    """A trial that trains nothing."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory(**config["spec"]["request"])


class SleepExecutor(ClusterExecutor):
    """The executor of a cluster with trials that sleep."""

    actor = SleepTrial


class _Watch(RunningSweep):
    """Notes when trials start; asks to stop after `limit` of them."""

    def __init__(self, trials: list[TrialConfig], stop: StopRequest, limit: int) -> None:
        super().__init__(trials, {config.trial_id(): 1.0 for config in trials}, done=0, side_by_side=1)
        self.stop, self.limit, self.starts = stop, limit, list[float]()

    def started(self, trial_id: str) -> None:
        super().started(trial_id)
        self.starts.append(time.perf_counter())
        if len(self.starts) > self.limit:
            self.stop.set("measured")


def _sweep(folder: Path, count: int, seconds: float, slots: int, limit: int) -> tuple[float, list[float]]:
    """Run `count` trials of so many seconds; return the sweep's seconds and when trials started in it."""
    fields = {"dataset": "phantom2d", "model": "test_vit", "weights": "random", "patch_size": 7, "epochs": 4}
    trials = [TrialConfig.model_validate(fields | {"seed": seed}) for seed in range(count)]
    paths = SweepPaths(folder)
    paths.trials.mkdir(parents=True)
    (folder / "seconds").write_text(str(seconds))
    stop = StopRequest(paths.stop)
    watch = _Watch(trials, stop, limit)
    options, execution = RunOptions(device="cpu", threads=1), ExecutorOptions(address="auto", retries=0)
    executor = SleepExecutor(Session(paths, options, execution, stop))
    began = time.perf_counter()
    executor.run(Work([(config,) for config in trials], Placement(1, 0.0, slots), watch))
    return time.perf_counter() - began, [start - began for start in watch.starts]


def _on_nodes(nodes: int, **sweep: Any) -> tuple[float, list[float]]:
    """A sweep on a cluster of that many nodes, one slot each, made for it; the head's is one of them."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=1)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            return _sweep(Path(folder) / "run", slots=nodes, **sweep)
        finally:
            ray.shutdown()
            cluster.shutdown()


def _queue(count: int, first: int) -> dict[str, float]:
    """What the first trials of a queue of that many cost, in a process of its own."""
    words = [sys.executable, __file__, "--queue", str(count), "--first", str(first)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _scale(seconds: float) -> dict[int, float]:
    """Seconds of the sweep on each number of nodes: all at once, in processes of their own, as they only sleep."""
    words = [sys.executable, __file__, "--seconds", str(seconds), "--nodes"]
    started = {nodes: subprocess.Popen([*words, str(nodes)], stdout=subprocess.PIPE, text=True) for nodes in NODES}
    return {nodes: float(process.communicate()[0].splitlines()[-1]) for nodes, process in started.items()}


def _measure_queue(count: int, first: int) -> dict[str, float]:
    _, starts = _on_nodes(1, count=count, seconds=0.0, limit=first)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    return {
        "queued": count,
        "run": len(starts),
        "seconds_to_first_start": starts[0],
        "seconds_per_trial": statistics.median(gaps),
        "seconds_per_trial_of_the_last_tenth": statistics.median(gaps[-max(1, len(gaps) // 10) :]),
        "driver_gigabytes": psutil.Process().memory_info().rss / 1e9,
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="Of a trial.")
    parser.add_argument("--repeats", type=int, default=3, help="Medians are reported.")
    parser.add_argument("--nodes", type=int, help="Measure one sweep on that many nodes alone.")
    parser.add_argument("--queue", type=int, help="Measure one queue of that many trials alone.")
    parser.add_argument("--first", type=int, default=FIRST_TRIALS, help="Trials of it that are run.")
    parser.add_argument("--queues-only", action="store_true", help="Leave the scaling out.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cluster_scaling.json")
    arguments = parser.parse_args()
    if arguments.queue:
        print(json.dumps(_measure_queue(arguments.queue, arguments.first)))
        return
    if arguments.nodes:
        print(_on_nodes(arguments.nodes, count=TRIALS, seconds=arguments.seconds, limit=TRIALS)[0])
        return
    scaling: list[dict[str, Any]] = []
    rounds = [] if arguments.queues_only else [_scale(arguments.seconds) for _ in range(arguments.repeats)]
    for nodes in NODES if rounds else ():
        times = [found[nodes] for found in rounds]
        ideal = TRIALS * arguments.seconds / nodes
        median = statistics.median(times)
        scaling.append({"nodes": nodes, "seconds": times, "ideal": ideal, "efficiency": ideal / median})
        scaling[-1]["efficiency_over_one_node"] = statistics.median(scaling[0]["seconds"]) / nodes / median
        print(json.dumps(scaling[-1]), flush=True)
    queues = []
    for count in QUEUES:
        repeats = [_queue(count, FIRST_TRIALS) for _ in range(arguments.repeats)]
        queues.append({key: statistics.median(each[key] for each in repeats) for key in repeats[0]})
        print(json.dumps(queues[-1]), flush=True)
    drained = _queue(DRAINED, DRAINED)
    print(json.dumps(drained), flush=True)
    result = {
        "trials": TRIALS,
        "seconds_per_trial": arguments.seconds,
        "repeats": arguments.repeats,
        "scaling": scaling,
        "queues": queues,
        "drained": drained,
        "load_average": os.getloadavg(),
        "provenance": {**provenance(), "ray": ray.__version__},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
