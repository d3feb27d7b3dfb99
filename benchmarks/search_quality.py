"""Does `raypatch tune` find the learning rate that a fine grid finds, and at which share of its epochs?

    python benchmarks/search_quality.py        about 5 minutes on one core

Made images, timm's test_vit without pretraining, 27 epochs. The grid: 13 rates from 1e-5 to 1e-1 with 5 seeds each. The
searches: 16 samples, one search for each of the 5 seeds. Writes benchmarks/results/search_quality.json.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from raypatch.config import RunOptions
from raypatch.machine.runtime import provenance
from raypatch.results import SweepPaths, read_result, read_sweep
from raypatch.study import Study
from raypatch.sweep.run import ExecutorOptions, run_sweep
from raypatch.sweep.tuning.recipes import summarize_search

SEEDS = range(5)
LOW, HIGH = 1e-5, 1e-1


def write_images(path: Path) -> None:
    """Write 8 x 8 noise images of four classes: their mean brightness."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 64), ("val", 48), ("test", 48)):
        labels = np.arange(count) % 4
        images = random.normal(90, 45, (count, 8, 8)) + 25 * labels[:, None, None]
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(path, **arrays)


def make_space(data: Path, **parts: object) -> Study:
    """The shared recipe with further parts of a search space."""
    fixed = {"dataset": str(data), "model": "test_vit", "weights": "random", "patch_size": 4, "epochs": 27}
    fixed |= {"batch_size": 8, "augmentation": "none", "schedule": "constant"}
    return Study.model_validate({"name": "quality", "fixed": fixed, **parts})


def grid_losses(folder: Path, space: Study, options: RunOptions, how: ExecutorOptions) -> dict[float, list[float]]:
    """Run the fine grid; validation loss of each seed by learning rate."""
    if run_sweep(space, folder, options, how).left:
        raise SystemExit("stopped; the same command goes on")
    losses: dict[float, list[float]] = {}
    for config in read_sweep(SweepPaths(folder).record).trials:
        result = read_result(SweepPaths(folder).trial(config.trial_id()).result)
        if result is not None and result.val is not None:
            losses.setdefault(config.lr, []).append(result.val["loss"])
    return losses


def main() -> None:
    """Run grid and searches in --work, again from where they were, and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/search_quality"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search_quality.json")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    data = arguments.work / "levels.npz"
    if not data.exists():
        write_images(data)
    options, how = RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local")

    searches = []
    for seed in SEEDS:
        search = {"samples": 16, "fields": {"lr": {"loguniform": [LOW, HIGH]}}}
        folder = arguments.work / f"search{seed}"
        if run_sweep(make_space(data, grid={"seed": [seed]}, search=search), folder, options, how).left:
            raise SystemExit("stopped; the same command goes on")
        (group,) = summarize_search(read_sweep(SweepPaths(folder).record), SweepPaths(folder))
        assert group.best is not None
        assert group.score is not None
        searches.append({"seed": seed, "lr": group.best.lr, "val_loss": group.score})
        searches[-1]["share_of_epochs"] = group.epochs / group.full_epochs

    rates = [float(f"{rate:.3g}") for rate in np.geomspace(LOW, HIGH, 13)]
    grid = make_space(data, grid={"lr": rates, "seed": list(SEEDS)})
    losses = grid_losses(arguments.work / "grid", grid, options, how)
    means = {rate: statistics.mean(values) for rate, values in losses.items()}
    best = min(means, key=lambda rate: means[rate])
    deviation = statistics.stdev(losses[best])
    for search in searches:
        search["factor"] = max(search["lr"] / best, best / search["lr"])
        search["good"] = search["factor"] <= 3 or search["val_loss"] <= means[best] + deviation
    content = {
        "grid_val_loss": {f"{rate:g}": losses[rate] for rate in sorted(losses)},
        "grid_best": {"lr": best, "val_loss": means[best], "standard_deviation": deviation},
        "searches": searches,
        "provenance": provenance(),
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps({key: content[key] for key in ("grid_best", "searches")}, indent=1))


if __name__ == "__main__":
    main()
