"""Real trials: MedMNIST's images on the device, from the first epoch to the result."""

import os
import tempfile
import time
from pathlib import Path

from cases import clean
from report import Report

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import TrialPaths, read_epochs
from raypatch.trial import train_trial

DATA = Path(os.environ.get("MEDMNIST_ROOT", "../shared/data/medmnist"))

TRIALS = (("breastmnist", 14, 1e-4, 20), ("breastmnist", 4, 1e-4, 20), ("adrenalmnist3d", 7, 1e-5, 5))
"""Dataset, patch size, learning rate, epochs."""


def real_trials(report: Report) -> None:
    """BreastMNIST at patch 14 and 4, Adrenal in 3D at patch 7: from random weights, which need no download."""
    for dataset, patch, lr, epochs in TRIALS:
        clean(report.device)
        case = f"{dataset} p{patch}"
        if not (DATA / f"{dataset}.npz").exists():
            report.line("real trial", None, case=case, skipped=f"no {dataset}.npz in {DATA}: set MEDMNIST_ROOT")
            continue
        model = "test_vit" if report.tiny else "vit_small_patch16_224"
        values = {"dataset": dataset, "patch_size": patch, "lr": lr, "model": model, "weights": "random"}
        config = TrialConfig.model_validate(values | {"batch_size": 8, "epochs": 1 if report.tiny else epochs})
        options = RunOptions(device=str(report.device), data_dir=DATA)
        with tempfile.TemporaryDirectory() as folder:
            paths = TrialPaths(Path(folder))
            started = time.perf_counter()
            result = train_trial(config, paths, options)
            seconds = time.perf_counter() - started
            rows = read_epochs(paths.epochs)
        report.line(
            "real trial",
            result.status == "ok" and len(rows) == config.epochs,
            case=case,
            seconds=seconds,
            epoch_seconds=[row.seconds for row in rows],
            images_per_second=result.images_per_second,
            train_loss=(rows[0].train_loss, rows[-1].train_loss),
            test=result.test,
            precision=result.precision,
            peak_mib=(result.peak_memory_bytes or 0) >> 20,
        )
