"""Images per second of the customary loop and of raypatch's engine, which take turns, and the ratio.

Each runs in a process of its own, as its user would run it: in one process the memory that one loop frees changes what
the other one gets. Where `--compile auto` compiles long trainings, the engine is measured both ways; the start of
compiling is not counted.

    python benchmarks/training_speed.py                       ViT-S, every patch size that is feasible here
    python benchmarks/training_speed.py --cases 2d-28,3d-14   some of them

Writes benchmarks/results/training_speed-<device>.json and prints the table of docs/BENCHMARKS.md. Beside each ratio of
wall-clock seconds stands that of processor seconds: on a machine with other work on it the second is the steadier one.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from ceilings import Ceilings, best_of, measure_ceilings, timed
from customary import evaluate, make_customary_optimizer, make_loader, train_epoch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.augment import channels_first, draw_parameters
from raypatch.machine.runtime import provenance, resolve_device, resolve_precision
from raypatch.models.attention import choose_attention
from raypatch.models.build import BuiltModel, build_model
from raypatch.models.flops import model_facts
from raypatch.models.memory import fit_memory
from raypatch.models.prepared import PreparedModel, place_model
from raypatch.results import ModelFacts
from raypatch.tasks import find_task
from raypatch.training.optim import make_optimizer
from raypatch.training.steps.compiled import LEAST_STEPS, is_compiled
from raypatch.training.steps.step import TrainingStep

ROOT = Path(__file__).resolve().parents[1]
CASES = {"cpu": "2d-28,2d-14,2d-7,2d-4,3d-14,3d-7", "cuda": "2d-28,2d-14,2d-7,2d-4,2d-2,2d-1,3d-28,3d-14,3d-7,3d-4"}
BYTES_PER_PARAMETER = 40
"""Traffic of one step that no order of work avoids: the forward pass reads a float32 weight, the backward pass reads it
and writes its gradient (4 bytes each), AdamW reads weight, gradient and two moments and writes all but the gradient."""


EVALUATED = 64
"""Images of one evaluation; the smallest validation split of MedMNIST has 78."""


class Pair:
    """The two loops on the same made images, at one patch size."""

    def __init__(
        self, case: str, model: str, batch_size: int, steps: int, device: torch.device, *, compiled: bool = True
    ) -> None:
        """compiled: measure the compiled engine too, where `--compile auto` compiles."""
        dimensions, patch_size = int(case[0]), int(case.split("-")[1])
        self.case, self.batch_size, self.count, self.device = case, batch_size, batch_size * steps, device
        self.config = TrialConfig(
            dataset=f"phantom{dimensions}d", patch_size=patch_size, model=model, weights="random", batch_size=batch_size
        )
        random = np.random.default_rng(0)
        shape = (28,) * dimensions + ((3,) if dimensions == 2 else ())
        images = random.integers(0, 256, (max(self.count, EVALUATED), *shape), dtype=np.uint8)
        labels = random.integers(0, 2, len(images))
        self.precision = resolve_precision("auto", device)
        self.facts: ModelFacts = model_facts(self.config, dimensions=dimensions, outputs=2)

        def build() -> BuiltModel:
            return build_model(self.config, dimensions=dimensions, outputs=2, files={})

        self.theirs = build().model.to(device)
        self.ours = place_model(self.config, build(), self.facts, device, self.precision)
        self.their_optimizer = make_customary_optimizer(self.theirs, lr=1e-4, weight_decay=0.05)
        self.loader = make_loader(images[: self.count], labels[: self.count], batch_size=batch_size, training=True)
        self.test_loader = make_loader(images, labels, batch_size=batch_size, training=False)
        self.images = channels_first(images, dimensions=dimensions).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.random = torch.Generator().manual_seed(0)
        self.step = self._make_step(self.ours, compiled=False)
        self.compiled_step: TrainingStep | None = None
        if compiled and is_compiled(self.config, RunOptions(), device, self.precision, LEAST_STEPS):
            prepared = place_model(self.config, build(), self.facts, device, self.precision)
            self.compiled_step = self._make_step(prepared, compiled=True)

    def _make_step(self, prepared: PreparedModel, *, compiled: bool) -> TrainingStep:
        choose_attention(prepared, self.batch_size)
        return TrainingStep(
            prepared,
            make_optimizer(prepared.model, self.config),
            find_task("multiclass").loss,
            self.config,
            micro_batch=fit_memory(prepared, self.config, "auto"),
            compiled=compiled,
        )

    def train_theirs(self) -> None:
        train_epoch(self.theirs, self.loader, self.their_optimizer, self.device)

    def train_ours(self) -> None:
        self._train(self.step)

    def train_compiled(self) -> None:
        """As a training of LEAST_STEPS and more does where `--compile auto` compiles."""
        assert self.compiled_step is not None, "asked before"
        self._train(self.compiled_step)

    def _train(self, step: TrainingStep) -> None:
        step.prepared.model.train()
        order = torch.randperm(self.count, generator=self.random).to(self.device)
        shape = self.images.shape[2:]
        drawn = draw_parameters(self.count, shape, self.random, mirror_safe=True).to(self.device)
        loss = torch.zeros((), device=self.device)
        for rows, parameters in zip(order.split(self.batch_size), drawn.split(self.batch_size), strict=True):
            loss += step(self.images[rows], self.labels[rows], parameters)
        loss.item()

    def evaluate_theirs(self) -> None:
        evaluate(self.theirs, self.test_loader, self.device)

    def evaluate_ours(self) -> None:
        self.ours.logits(self.images).cpu()


class Apart:
    """A `Pair` in a process of its own, of which parts are run by name."""

    def __init__(self, *arguments: Any) -> None:
        """arguments: those of the pair."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, torch.get_num_threads(), arguments), daemon=True)
        self._process.start()

    def timed(self, part: str) -> tuple[float, float]:
        """Run a part; its seconds, and those of the processor."""
        self._pipe.send(part)
        seconds: tuple[float, float] = self._pipe.recv()
        return seconds

    def end(self) -> None:
        self._pipe.send("")
        self._process.join()


def _serve(pipe: Connection, threads: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    pair = Pair(*arguments)
    # glibc gives freed memory back to the system and asks for it again in every step, until a block of some size was
    # freed once: a training is through with that after two epochs, the customary one too.
    torch.empty(31 << 20, dtype=torch.uint8)
    while part := pipe.recv():
        pipe.send(timed(getattr(pair, part), pair.device))


def compare(pair: Pair, rounds: int, take: Callable[[str], tuple[float, float]] | None = None) -> dict[str, Any]:
    """Run the parts in turn, `rounds` times after one that does not count; ratios are of neighbours in time.

    take: runs a part by name and gives its seconds and the processor's; without it they run here.
    """
    names = ["train_theirs", "train_ours", "evaluate_theirs", "evaluate_ours"]
    if pair.compiled_step is not None:
        names.insert(2, "train_compiled")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            taken, worked = take(name) if take else timed(getattr(pair, name), pair.device)
            if number:
                seconds[name].append(taken)
                processor[name].append(worked)
    counts = {name: pair.count if name.startswith("train") else len(pair.images) for name in names}
    speed = {name: counts[name] / statistics.median(values) for name, values in seconds.items()}
    return {
        "case": pair.case,
        "tokens": pair.facts.tokens,
        "precision": pair.precision,
        "images_per_second": {name: round(value, 2) for name, value in speed.items()},
        "train_ratio": _ratio(seconds, "train"),
        "evaluate_ratio": _ratio(seconds, "evaluate"),
        "train_processor_ratio": _ratio(processor, "train"),
        "evaluate_processor_ratio": _ratio(processor, "evaluate"),
        "compiled_ratio": _ratio(seconds, "train", "compiled") if pair.compiled_step is not None else None,
        "work": {  # of one part of a round; what the arithmetic and the traffic of the engine's come to
            "train": {
                "flops": 3e9 * pair.facts.gflops * pair.count,
                "bytes": BYTES_PER_PARAMETER * pair.facts.parameters * pair.count // pair.batch_size,
            },
            "evaluate": {"flops": 1e9 * pair.facts.gflops * len(pair.images), "bytes": 4 * pair.facts.parameters},
        },
        "seconds": seconds,
        "processor_seconds": processor,
    }


def _ratio(seconds: dict[str, list[float]], part: str, whose: str = "ours") -> float:
    pairs = zip(seconds[f"{part}_theirs"], seconds[f"{part}_{whose}"], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def against_floor(row: dict[str, Any], ceilings: Ceilings) -> dict[str, float]:
    """For training and evaluation: the fraction of the floor, and the ratio that an engine at the floor would have.

    The floor is the time of the arithmetic at the measured ceiling of torch's products, or of the memory traffic; the
    fraction is that over the engine's fastest part. With torch's products in this precision no engine passes the floor.
    """
    found = {}
    for part, work in row["work"].items():
        floor = max(work["flops"] / getattr(ceilings, row["precision"]), work["bytes"] / ceilings.bandwidth)
        found[f"{part}_fraction_of_floor"] = floor / min(row["seconds"][f"{part}_ours"])
        found[f"{part}_ratio_at_floor"] = statistics.median(row["seconds"][f"{part}_theirs"]) / floor
    return found


def write_table(record: dict[str, Any]) -> str:
    """The rows as a Markdown table."""
    heads = ["Images", "Patch", "Tokens", "Customary", "Engine"]
    for part in ("Training", "Evaluation"):
        heads += [f"{part}: ratio", "of processor seconds", "of the floor", "ratio at the floor"]
    heads.append("Compiled: ratio")
    lines = [_line(heads), _line("---" if head == "Images" else "---:" for head in heads)]
    for row in record["rows"]:
        kind, patch = row["case"].split("-")
        cells = [kind.upper(), patch, f"{row['tokens']:,}"]
        cells += [f"{row['images_per_second'][part]:.1f}" for part in ("train_theirs", "train_ours")]
        for part in ("train", "evaluate"):
            cells += [f"{row[f'{part}_ratio']:.2f}", f"{row[f'{part}_processor_ratio']:.2f}"]
            cells += [f"{row[f'{part}_fraction_of_floor']:.0%}", f"{row[f'{part}_ratio_at_floor']:.2f}"]
        cells.append("" if row["compiled_ratio"] is None else f"{row['compiled_ratio']:.2f}")
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cases", help="such as 2d-28,3d-14; default all that are feasible")
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of one part of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="default benchmarks/results/training_speed-<device>.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    ceilings = measure_ceilings(device)
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": ["python", *sys.argv],
        "hardware": provenance() | {"threads": str(arguments.threads)},
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "load_before": os.getloadavg(),
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "batch_size": arguments.batch_size,
        "model": arguments.model,
        "rows": [],
    }
    out = arguments.out or ROOT / "benchmarks" / "results" / f"training_speed-{device.type}.json"
    for case in (arguments.cases or CASES[device.type]).split(","):
        started = time.perf_counter()
        made = case, arguments.model, arguments.batch_size, arguments.steps, device
        # Before those that work beside it: it may measure attention, whose answer is kept.
        pair = Pair(*made)
        customary, engine = Apart(*made), Apart(*made)

        def take(part: str, customary: Apart = customary, engine: Apart = engine) -> tuple[float, float]:
            return (customary if part.endswith("theirs") else engine).timed(part)

        record["rows"].append(compare(pair, arguments.rounds, take))
        customary.end()
        engine.end()
        # Other work on the machine can only hide what it can do: the best of all is nearest
        ceilings = best_of(ceilings, measure_ceilings(device))
        record["ceilings"] = asdict(ceilings)
        for row in record["rows"]:
            row |= against_floor(row, ceilings)
        record["load_after"] = os.getloadavg()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        print(f"{case}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(write_table(record))


if __name__ == "__main__":
    main()
