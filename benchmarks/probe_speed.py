"""A linear probe of many rates and seeds on stored features against the customary one, and the pass against its floor.

    python benchmarks/probe_speed.py                            12 rates x 3 seeds, 100 epochs, on breastmnist
    python benchmarks/probe_speed.py --patch-size 4 --epochs 10

The customary probe passes every image through the frozen backbone in each epoch of each trial. One of its epochs is
measured, the fastest of --rounds, and times epochs x trials is what all would take; ours is run in full, with every
file that it writes. The floor of a pass is the time of its convolutions, matrix products and attention alone, on the
same shapes and in the same precision, in processor seconds of one thread: other work on the machine hardly counts in
those. Writes benchmarks/results/probe_speed-cpu.json.
"""

import argparse
import contextlib
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from customary import evaluate, make_customary_optimizer, make_loader, train_epoch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import dataset_info
from raypatch.data.source import load_split
from raypatch.features.extract import FrozenBackbone, freeze
from raypatch.machine.runtime import provenance, resolve_precision
from raypatch.models.prepared import prepare_model
from raypatch.results import SweepPaths
from raypatch.sweep.guard import run_group_guarded

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
RATES, SEEDS = 12, 3
PASSED = {"deit_tiny_patch16_224": 16, "efficientnet_lite0": None}
"""Models whose pass is held against its floor, at 224 pixels, with their patch size."""


def probe_trials(patch_size: int, epochs: int) -> list[TrialConfig]:
    """The trials of one backbone: rates from .1 down by factors of about 2, each with every seed."""
    trials = []
    for number in range(RATES):
        for seed in range(SEEDS):
            fields = {"lr": 0.1 / 2**number, "seed": seed, "epochs": epochs, "patch_size": patch_size}
            fixed = {"dataset": "breastmnist", "model": "deit_tiny_patch16_224", "weights": "random"}
            method = {"method": "linear_probe", "augmentation": "none"}
            trials.append(TrialConfig.model_validate(fixed | method | fields))
    return trials


def run_ours(trials: list[TrialConfig], options: RunOptions) -> float:
    """Seconds of all trials from nothing to their results on disk."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = SweepPaths(Path(folder) / "run")
        started = time.perf_counter()
        # Random weights are another backbone for each seed; pretrained ones would share one pass.
        for seed in range(SEEDS):
            group = [config for config in trials if config.seed == seed]
            results = run_group_guarded(group, sweep, options, on_epoch=_ignore, should_stop=lambda: False)
            assert [result.status for result in results] == ["ok"] * len(group)
        return time.perf_counter() - started


def _ignore(trial_id: str, row: object) -> None:
    pass


def run_customary_epoch(config: TrialConfig, options: RunOptions) -> float:
    """Seconds of one epoch of one trial: training images and validation images through the backbone."""
    prepared = prepare_model(config, dataset_info(config.dataset), options)
    model = prepared.model.requires_grad_(False)
    prepared.head.requires_grad_(True)
    loaders = []
    for split in ("train", "val"):
        found = load_split(config.dataset, split, data_dir=options.data_dir)
        # Grey becomes three channels, as that loop has it.
        images = found.images[..., None].repeat(3, axis=-1)
        loaders.append(make_loader(images, found.labels, batch_size=config.batch_size, training=False))
    optimizer = make_customary_optimizer(prepared.head, lr=config.lr, weight_decay=config.weight_decay)
    started = time.perf_counter()
    train_epoch(model, loaders[0], optimizer, CPU)
    evaluate(model, loaders[1], CPU)
    return time.perf_counter() - started


def compare_probes(arguments: argparse.Namespace, options: RunOptions) -> dict[str, Any]:
    """Seconds of both probes and their ratio; the customary epoch is measured before and after ours."""
    trials = probe_trials(arguments.patch_size, arguments.epochs)
    customary = [run_customary_epoch(trials[0], options) for _ in range(arguments.rounds)]
    ours = run_ours(trials, options)
    customary += [run_customary_epoch(trials[0], options) for _ in range(arguments.rounds)]
    of_all = min(customary) * arguments.epochs * len(trials)
    return {
        "dataset": "breastmnist",
        "images": dataset_info("breastmnist").counts,
        "model": trials[0].model,
        "patch_size": arguments.patch_size,
        "trials": len(trials),
        "epochs": arguments.epochs,
        "backbone_passes": SEEDS,
        "customary_epoch_seconds": customary,
        "customary_seconds": of_all,
        "ours_seconds": ours,
        "ratio": of_all / ours,
    }


def pass_against_floor(model: str, rounds: int, options: RunOptions) -> dict[str, Any]:
    """Processor seconds per image of a pass, of its products alone, and the fraction that these are."""
    fields = {"dataset": "phantom2d", "model": model, "weights": "random", "image_size": 224}
    config = TrialConfig.model_validate(fields | {"patch_size": PASSED[model], "method": "knn"})
    prepared = prepare_model(config, dataset_info("phantom2d"), options)
    images = torch.randint(0, 256, (64, 3, 224, 224), dtype=torch.uint8)
    frozen = freeze(prepared, images, "pooled")
    batch = images[: frozen.batch_size(images)]
    products = record_products(frozen, batch)
    whole, alone = [], []
    for _ in range(rounds):
        whole.append(_processor_seconds(lambda: frozen.features(batch)))
        alone.append(sum(_processor_seconds(product) for product in products))
    return {
        "model": model,
        "batch": len(batch),
        "precision": prepared.precision,
        "products": len(products),
        "pass_seconds_per_image": min(whole) / len(batch),
        "floor_seconds_per_image": min(alone) / len(batch),
        "fraction_of_floor": min(alone) / min(whole),
    }


def _processor_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    with torch.inference_mode():
        call()
    return time.process_time() - started


def record_products(frozen: FrozenBackbone, batch: Tensor) -> list[Callable[[], Tensor]]:
    """Each convolution, matrix product and attention of a pass, ready to be done again by itself."""
    dtype = torch.bfloat16 if frozen.prepared.precision == "bfloat16" else torch.float32
    products: list[Callable[[], Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        given, weight = inputs[0].to(dtype), layer.weight.to(dtype)  # type: ignore[operator]
        bias = None if layer.bias is None else layer.bias.to(dtype)  # type: ignore[operator]
        if isinstance(layer, nn.Linear):
            products.append(lambda: F.linear(given, weight, bias))
        else:
            shape = layer.stride, layer.padding, layer.dilation, layer.groups
            products.append(lambda: F.conv2d(given, weight, bias, *shape))  # type: ignore[arg-type]

    layers = [layer for layer in frozen.body.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with _noted_attention(products):
        frozen.features(batch)
    for hook in hooks:
        hook.remove()
    return products


@contextlib.contextmanager
def _noted_attention(products: list[Callable[[], Tensor]]) -> Iterator[None]:
    attention = F.scaled_dot_product_attention

    def noted(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        products.append(lambda: attention(query, key, value))
        return attention(query, key, value, **settings)

    F.scaled_dot_product_attention = noted  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = attention


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch-size", type=int, default=14)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data-dir", type=Path, help="where breastmnist.npz lies; default as raypatch's")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "probe_speed-cpu.json")
    arguments = parser.parse_args()
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": ["python", *sys.argv],
        "hardware": provenance(),
        "precision": resolve_precision("auto", CPU),
        "load_before": os.getloadavg(),
    }
    torch.set_num_threads(1)
    one_thread = RunOptions(device="cpu", threads=1)
    record["passes"] = [pass_against_floor(model, arguments.rounds, one_thread) for model in PASSED]
    print(json.dumps(record["passes"], indent=1), flush=True)
    torch.set_num_threads(arguments.threads)
    options = RunOptions(device="cpu", threads=arguments.threads, data_dir=arguments.data_dir)
    record["probe"] = compare_probes(arguments, options)
    record["load_after"] = os.getloadavg()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record["probe"], indent=1))


if __name__ == "__main__":
    main()
