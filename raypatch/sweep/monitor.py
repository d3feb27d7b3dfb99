"""Gauges of the running trials, which Ray hands to Prometheus."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

from raypatch.sweep import ray_setup  # noqa: F401 - makes the settings that ray reads when it is imported

# isort: split
from ray.util.metrics import Gauge

from raypatch.config import TrialConfig
from raypatch.results import EpochRow

REFRESH_SECONDS = 5.0
"""Ray drops a gauge that was not set within its last two reports, 10 s apart."""

GAUGES = {
    "epoch": "Completed epochs of a running trial",
    "val_loss": "Validation loss of its last epoch, nats per image",
    "val_auc": "Macro one-vs-rest AUC on the validation images after its last epoch",
    "images_per_second": "Training images per second in its last epoch",
    "peak_memory_bytes": "Most memory it had on its GPU so far; without a GPU, of its process",
}


@functools.cache
def _gauge(name: str) -> Gauge:
    return Gauge(f"raypatch_{name}", description=GAUGES[name], tag_keys=("trial", "dataset", "patch_size"))


@contextlib.contextmanager
def trial_gauges(config: TrialConfig) -> Iterator[Callable[[EpochRow], None]]:
    """Offer the figures of a trial's last epoch as Ray's metrics while it runs, and no longer.

    Yields what takes each epoch's row. Call in a Ray worker.
    """
    tags = {"trial": config.trial_id(), "dataset": config.dataset, "patch_size": str(config.patch_size)}
    figures: dict[str, float] = {}
    over = threading.Event()

    def publish() -> None:
        for name, value in figures.items():
            _gauge(name).set(value, tags)

    def keep_fresh() -> None:
        while not over.wait(REFRESH_SECONDS):
            publish()

    def take(row: EpochRow) -> None:
        nonlocal figures
        figures = {name: getattr(row, name) for name in GAUGES}
        publish()

    thread = threading.Thread(target=keep_fresh, name="gauges", daemon=True)
    thread.start()
    try:
        yield take
    finally:
        over.set()
        thread.join()
