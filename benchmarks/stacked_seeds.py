"""Three seeds of one cell: trained as one model of stacked weights, side by side, and one after another.

    python benchmarks/stacked_seeds.py                  ViT-S, 28 pixels, batch 8, patch sizes 28 and 14
    python benchmarks/stacked_seeds.py --patches 28,7   others

Side by side is what a sweep does on the cores of a CPU: a process of one thread for each of two trials; the third one
comes after them, alone. `throughput` leaves that out, as in a sweep of many trials. The parts take turns; ratios are
medians of neighbours in time. Writes benchmarks/results/stacked_seeds-<device>.json after each patch size.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import draw_parameters
from raypatch.machine.runtime import provenance, resolve_device, resolve_precision
from raypatch.models.attention import choose_attention
from raypatch.models.build import build_model
from raypatch.models.flops import model_facts
from raypatch.models.prepared import PreparedModel, place_model
from raypatch.tasks import find_task
from raypatch.training.optim import make_optimizer
from raypatch.training.stacked_models import make_stacked_step
from raypatch.training.steps.step import TrainingStep

ROOT = Path(__file__).resolve().parents[1]
SEEDS = 3
EDGE = 28


class Cell:
    """Trials that differ in the seed alone, on made images, and how they take their steps."""

    def __init__(self, config: TrialConfig, seeds: int, device: torch.device) -> None:
        self.device, self.size = device, config.batch_size
        configs = [config.model_copy(update={"seed": seed}) for seed in range(seeds)]
        self.models = [_prepare(each, device) for each in configs]
        optimizers = [make_optimizer(each.model, config, each.head) for each in self.models]
        loss = find_task("multiclass").loss
        self.lone = TrainingStep(self.models[0], optimizers[0], loss, config, micro_batch=self.size)
        self.stacked: TrainingStep | None = None
        if seeds > 1:
            # The first model stays alone; the others and a copy of the first make the stack.
            first = _prepare(configs[0], device)
            members = [first, *self.models[1:]]
            optimizers = [make_optimizer(each.model, config, each.head) for each in members]
            self.stacked, _ = make_stacked_step(members, optimizers, loss, config, micro_batch=self.size)
        random = torch.Generator().manual_seed(0)
        shape = (self.size, seeds, 3, EDGE, EDGE)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random).to(device)
        self.labels = torch.randint(0, 2, shape[:2], generator=random).to(device)
        drawn = draw_parameters(self.size * seeds, shape[3:], random, mirror_safe=True)
        self.drawn = drawn.unflatten(0, shape[:2]).to(device)

    def step_alone(self) -> None:
        """A step of one trial, as raypatch takes it."""
        self.lone(self.images[:, 0], self.labels[:, 0], self.drawn[:, 0]).tolist()

    def step_together(self) -> None:
        """A step of all trials as one model."""
        assert self.stacked is not None
        self.stacked(self.images, self.labels, self.drawn).tolist()


def _prepare(config: TrialConfig, device: torch.device) -> PreparedModel:
    built = build_model(config, dimensions=2, outputs=2, files={})
    facts = model_facts(config, dimensions=2, outputs=2)
    prepared = place_model(config, built, facts, device, resolve_precision("auto", device))
    choose_attention(prepared, config.batch_size)
    prepared.model.train()
    return prepared


def seconds_of(call: Callable[[], object], times: int) -> float:
    """Seconds of so many calls."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - started


def work(config: TrialConfig, device: str, pipe: Connection) -> None:
    """A process of one thread that takes as many steps of one trial as it is asked for."""
    torch.set_num_threads(1)
    cell = Cell(config, 1, resolve_device(device))
    while steps := pipe.recv():
        pipe.send(seconds_of(cell.step_alone, steps))


class Workers:
    """Two such processes, as a sweep has them on two cores."""

    def __init__(self, config: TrialConfig, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(config, device, theirs))
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def take(self, steps: int, workers: int) -> None:
        """Let so many of them take the steps at once."""
        for pipe in self.pipes[:workers]:
            pipe.send(steps)
        for pipe in self.pipes[:workers]:
            pipe.recv()

    def end(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(0)
            process.join()


def measure(config: TrialConfig, device: str, *, steps: int, rounds: int) -> dict[str, Any]:
    """Time the parts in turn, after a round that does not count."""
    cell, workers = Cell(config, SEEDS, resolve_device(device)), Workers(config, device)
    parts: dict[str, Callable[[], float]] = {
        "stacked": lambda: seconds_of(cell.step_together, steps),
        "one_after_another": lambda: SEEDS * seconds_of(cell.step_alone, steps),
        "two_at_once": lambda: seconds_of(lambda: workers.take(steps, 2), 1),
        "the_third_alone": lambda: seconds_of(lambda: workers.take(steps, 1), 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    loads = []
    for number in range(rounds + 1):
        loads.append(os.getloadavg()[0])
        for name, part in parts.items():
            taken = part()
            if number:
                seconds[name].append(taken)
    workers.end()
    side_by_side = [sum(pair) for pair in zip(seconds["two_at_once"], seconds["the_third_alone"], strict=True)]
    throughput = [SEEDS / 2 * taken for taken in seconds["two_at_once"]]
    others = {
        "side_by_side": side_by_side,
        "throughput": throughput,
        "one_after_another": seconds["one_after_another"],
    }
    row: dict[str, Any] = {"patch_size": config.patch_size, "precision": resolve_precision("auto", cell.device)}
    row["milliseconds"] = {"stacked": _milliseconds(seconds["stacked"], steps)}
    for name, taken in others.items():
        row["milliseconds"][name] = _milliseconds(taken, steps)
        pairs = zip(taken, seconds["stacked"], strict=True)
        row[f"against_{name}"] = round(statistics.median(other / stacked for other, stacked in pairs), 3)
    return row | {"seconds": seconds, "load": loads}


def _milliseconds(seconds: list[float], steps: int) -> float:
    """Of one step of all seeds."""
    return round(1000 * statistics.median(seconds) / steps, 1)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--patches", default="28,14")
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of each part in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of the parts that are one process")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/stacked_seeds-<device>.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": ["python", *sys.argv],
        "hardware": provenance(),
        "load_before": os.getloadavg(),
        "seeds": SEEDS,
        **{name: getattr(arguments, name) for name in ("model", "batch_size", "steps", "rounds", "threads")},
        "rows": [],
    }
    out = arguments.out or ROOT / "benchmarks" / "results" / f"stacked_seeds-{device.type}.json"
    for patch in map(int, arguments.patches.split(",")):
        config = TrialConfig(
            dataset="phantom2d",
            patch_size=patch,
            model=arguments.model,
            weights="random",
            batch_size=arguments.batch_size,
        )
        row = measure(config, arguments.device, steps=arguments.steps, rounds=arguments.rounds)
        record["rows"].append(row)
        record["load_after"] = os.getloadavg()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        shown = {name: value for name, value in row.items() if name not in ("seconds", "load")}
        print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
