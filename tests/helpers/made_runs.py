"""Run folders with made-up results, written through raypatch.results: for tests of the analysis, not of medicine.

`python tests/helpers/made_runs.py FOLDER` writes the 216-trial grid with made-up numbers, or one of STUDIES:
`python tests/helpers/made_runs.py FOLDER methods`.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from raypatch.config import TrialConfig
from raypatch.data.catalog import DatasetInfo, dataset_info
from raypatch.factors import Factor
from raypatch.results import (
    DatasetFacts,
    EpochRow,
    ModelFacts,
    Predictions,
    SweepPaths,
    SweepRecord,
    TrialResult,
    write_config,
    write_epochs,
    write_json,
    write_predictions,
)
from raypatch.study import Study
from raypatch.study.resolve import resolve_trials
from raypatch.tasks import find_task

PROVENANCE = {"raypatch": "made up", "torch": "made up", "git": "made up", "hardware": "made up, nothing was trained"}
GRID = (
    *("breastmnist", "pneumoniamnist", "dermamnist", "retinamnist", "bloodmnist", "organcmnist", "organsmnist"),
    *("vesselmnist3d", "adrenalmnist3d", "fracturemnist3d", "nodulemnist3d", "synapsemnist3d"),
)
PATCH_SIZES = (28, 14, 7, 4, 2, 1)
SOME = ["breastmnist", "retinamnist", "bloodmnist", "vesselmnist3d", "nodulemnist3d"]
STUDIES = {
    "methods": {
        "compare": ["method"],
        "fixed": {"patch_size": 7},
        "grid": {"dataset": SOME, "method": ["finetune", "linear_probe"], "seed": [0, 1, 2]},
    },
    "fractions": {
        "compare": ["train_fraction"],
        "fixed": {"patch_size": 7},
        "grid": {"dataset": SOME[:3], "train_fraction": [0.05, 0.1, 0.25, 0.5, 1.0], "seed": [0, 1, 2]},
    },
    "backbones": {
        "compare": ["backbone"],
        "baseline": {"backbone": "ViT-S/16"},
        "grid": {
            "dataset": SOME,
            "backbone": {
                "ViT-Ti/16, ImageNet-21k": {"model": "vit_tiny_patch16_224", "patch_size": 14, "lr": 2e-4},
                "ViT-S/16": {"model": "vit_small_patch16_224", "patch_size": 14},
                "ViT-B/16, augmented": {"model": "vit_base_patch16_224", "patch_size": 14, "lr": 5e-5},
                "ResNet-18": {"model": "resnet18"},
            },
            "seed": [0, 1, 2],
        },
    },
    "two": {
        "compare": ["patch_size", "model"],
        "grid": {
            "dataset": SOME[:3],
            "patch_size": [28, 14, 7, 4],
            "model": ["vit_tiny_patch16_224", "vit_small_patch16_224"],
            "seed": [0, 1, 2],
        },
    },
}
"""Studies that compare something else than patch sizes, and two things at once."""
WIDTHS = {"tiny": 192, "small": 384, "base": 768}


def made_config(dataset: str, patch_size: int, seed: int, **fields) -> TrialConfig:
    """The recipe of the study for one cell; `fields` replace parts of it."""
    spatial = {"lr": 1e-5, "epochs": 20} if dataset_info(dataset).dimensions == 3 else {}
    return TrialConfig.model_validate({"dataset": dataset, "patch_size": patch_size, "seed": seed} | spatial | fields)


def made_model(config: TrialConfig, info: DatasetInfo) -> ModelFacts:
    """Counts of a ViT by the formula of multiply-accumulates per image: 144 N D² + 24 N² D + P p^d C D.

    A model without patches gets made-up ones.
    """
    if config.patch_size is None:
        return ModelFacts(parameters=11_200_000, gflops=0.3, gflops_without_attention=0.3)
    width = next((width for name, width in WIDTHS.items() if name in config.model), 384)
    patches = (config.image_size // config.patch_size) ** info.dimensions
    tokens = patches + 1
    embedding = 3 * patches * config.patch_size**info.dimensions * width
    linear, attention = 144 * tokens * width**2, 24 * tokens**2 * width
    return ModelFacts(
        parameters=144 * width**2 + 66_000 + 3 * config.patch_size**info.dimensions * width + tokens * width,
        tokens=patches,
        gflops=2 * (linear + attention + embedding) / 1e9,
        gflops_without_attention=2 * (linear + embedding) / 1e9,
    )


def _made_probability(label: np.ndarray, classes: int, task: str, separation: float, hard: int, own: int) -> np.ndarray:
    """Noisy logits: part of the noise belongs to the images and is shared by all trials, part is the trial's own."""
    truth = label if task == "multilabel" else np.eye(classes)[label]
    shared = np.random.default_rng(hard).normal(size=truth.shape)
    noise = np.random.default_rng(own).normal(size=truth.shape)
    logits = separation * (truth - (0.5 if task == "multilabel" else 0)) + 0.8 * shared + 0.6 * noise
    if task == "multilabel":
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    powers = np.exp(1.3 * (logits - logits.max(axis=1, keepdims=True)))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def made_predictions(config: TrialConfig, info: DatasetInfo, split: str, images: int) -> Predictions:
    """Better for smaller patches, a little different for each dataset and seed, the same on every call."""
    place = sum(info.name.encode())
    hard = place * 10 + (split == "test")
    rng = np.random.default_rng(hard)
    classes = len(info.classes)
    if info.task == "multilabel":
        label = rng.integers(0, 2, (images, classes))
    else:
        shares = 0.75 ** np.arange(classes)
        label = rng.choice(classes, images, p=shares / shares.sum())
    patch_size = config.patch_size or 7
    own = hard + 97 * config.seed + 100_003 * patch_size + int(1e7 * config.lr)
    own += sum(f"{config.model} {config.method} {config.train_fraction}".encode()) * 7
    gain = (0.35, 0.25, 0.15, 0.02)[place % 4]
    luck = np.random.default_rng(own).normal(scale=0.05)
    separation = 1.1 + 0.2 * (place % 5) + gain * math.log(28 / patch_size) / math.log(4) + luck
    separation += 0.3 * math.log10(config.train_fraction)
    separation += {"tiny": -0.1, "base": 0.15}.get(config.model.split("_")[1] if "_" in config.model else "", 0)
    if config.method == "linear_probe":
        separation -= gain
    if patch_size == 1:
        separation -= 0.12 * (place % 3)
    probability = _made_probability(label, classes, info.task, separation, hard + 5, own)
    return Predictions(np.arange(images), label, probability)


def made_epochs(config: TrialConfig, gflops: float, final: dict[str, float]) -> list[EpochRow]:
    """Curves that fall towards the final figures and rise a little in the end."""
    rows = []
    for epoch in range(1, config.epochs + 1):
        done = 1 - math.exp(-4 * epoch / config.epochs)
        late = 0.15 * max(0.0, epoch / config.epochs - 0.6)
        rows.append(
            EpochRow(
                epoch=epoch,
                train_loss=final["loss"] * (2 - 1.4 * done),
                val={
                    "loss": final["loss"] * (1.6 - 0.65 * done + late),
                    "accuracy": final["accuracy"] * (0.6 + 0.4 * done),
                    "balanced_accuracy": final["balanced_accuracy"] * (0.5 + 0.5 * done),
                    "auc": 0.5 + (final["auc"] - 0.5) * done,
                },
                lr=config.lr * 0.5 ** ((epoch - 1) // 30),
                seconds=1 + 2 * gflops,
                images_per_second=3000 / (1 + 4 * gflops),
            )
        )
    return rows


def write_trial(
    folder: Path,
    config: TrialConfig,
    *,
    images: int | None = None,
    status: str = "ok",
    info: DatasetInfo | None = None,
) -> TrialResult:
    """Write one finished trial; `images` caps val and test, 0 leaves predictions and epochs out; info: of own data."""
    paths = SweepPaths(folder).trial(config.trial_id())
    paths.folder.mkdir(parents=True, exist_ok=True)
    info = info or dataset_info(config.dataset)
    counts = [count if not images else min(count, images) for count in info.counts]
    model = made_model(config, info)
    effort = 0.4 if config.method == "linear_probe" else 1
    write_config(paths.config, config)
    splits = {
        split: made_predictions(config, info, split, count if images != 0 else 40)
        for split, count in zip(("val", "test"), counts[1:], strict=True)
    }
    task = find_task(info.task)
    scores = {split: task.score(found.probability, found.label) for split, found in splits.items()}
    if images != 0:
        write_epochs(paths.epochs, made_epochs(config, model.gflops, dict(scores["val"])))
        if status == "ok":
            write_predictions(paths.predictions, splits)
    result = TrialResult(
        trial_id=config.trial_id(),
        status=status,
        epochs=config.epochs if status == "ok" else 1,
        best_epoch=max(1, config.epochs * 6 // 10),
        val=scores["val"],
        test=scores["test"] if status == "ok" else None,
        dataset=DatasetFacts(
            task=info.task,
            dimensions=info.dimensions,
            channels=info.channels,
            classes=info.classes,
            counts=tuple(counts),
        ),
        model=model,
        train_seconds=config.epochs * counts[0] / 1000 * (1 + 2 * model.gflops) * config.train_fraction * effort,
        images_per_second=3000 / (1 + 4 * model.gflops) * (1 - 0.02 * len(info.classes)),
        peak_memory_bytes=int(3e8 + 2e6 * (model.tokens or 50)),
        precision="bfloat16",
        device="made up",
        provenance=PROVENANCE,
    )
    write_json(paths.result, result)
    return result


def write_failed_trial(folder: Path, config: TrialConfig) -> None:
    """Write a trial that failed before its data was read."""
    paths = SweepPaths(folder).trial(config.trial_id())
    paths.folder.mkdir(parents=True, exist_ok=True)
    write_config(paths.config, config)
    error = "Traceback (most recent call last):\n  ...\ntorch.OutOfMemoryError: made up"
    write_json(paths.result, TrialResult(trial_id=config.trial_id(), status="failed", error=error))


def write_sweep(
    folder: Path, configs: Iterable[TrialConfig], name: str = "made-up", *, factors: Iterable[Factor] = (), **asked
) -> None:
    """Write sweep.json with `configs` as the planned trials; asked: further fields, such as levels and expect."""
    folder.mkdir(parents=True, exist_ok=True)
    record = SweepRecord(
        name=name,
        study="made up",
        command=("raypatch", "run", "made-up"),
        created="2026-01-01T00:00:00+00:00",
        provenance=PROVENANCE,
        trials=tuple(configs),
        factors=tuple(factors),
        **asked,
    )
    write_json(SweepPaths(folder).record, record)


def made_configs(datasets: Sequence[str], patch_sizes: Sequence[int], seeds: int, **fields) -> list[TrialConfig]:
    """Every combination of datasets, patch sizes and seeds 0 to `seeds` - 1."""
    return [
        made_config(dataset, patch, seed, **fields)
        for dataset in datasets
        for patch in patch_sizes
        for seed in range(seeds)
    ]


def write_run(folder: Path, configs: Sequence[TrialConfig], *, images: int | None = None) -> Path:
    """Write a finished run of `configs` and return its folder."""
    write_sweep(folder, configs)
    for config in configs:
        write_trial(folder, config, images=images)
    return folder


def write_study(folder: Path, study: dict, *, images: int | None = None, epochs: int | None = None) -> Path:
    """Write a finished run of a study, given as its YAML would be, and return its folder."""
    fixed = study.get("fixed", {}) | ({"epochs": epochs} if epochs else {})
    resolved = resolve_trials(Study.model_validate({"name": "made-up"} | study | {"fixed": fixed}))
    asked = {name: study[name] for name in ("metric", "expect") if name in study}
    write_sweep(folder, resolved.trials, factors=resolved.factors, levels=resolved.levels, **asked)
    for config in resolved.trials:
        write_trial(folder, config, images=images)
    return folder


if __name__ == "__main__":
    if len(sys.argv) > 2:
        write_study(Path(sys.argv[1]), STUDIES[sys.argv[2]], epochs=20)
    else:
        write_run(Path(sys.argv[1]), made_configs(GRID, PATCH_SIZES, 3))
