"""Gauges of a sweep and of its running trials, which Ray hands to Prometheus."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping

# First of all, because it makes the settings that ray reads when it is imported.
from raypatch.sweep.services import ray_setup  # noqa: F401

# isort: split
from ray.util.metrics import Gauge

from raypatch.config import TrialConfig
from raypatch.results import EpochRow
from raypatch.sweep.watch.running import RunningSweep

REFRESH_SECONDS = 5.0
"""Ray drops a gauge that was not set within its last two reports, 10 s apart."""

GAUGES = {
    "epoch": "Completed epochs of a running trial",
    "val_loss": "Validation loss of its last epoch, nats per image",
    "val_score": "Another validation score after its last epoch, by metric",
    "images_per_second": "Training images per second in its last epoch",
    "peak_memory_bytes": "Most memory it had on its GPU so far; without a GPU, of its process",
}
"""Of a running trial."""

SWEEP_GAUGES = {
    "trials": "Trials of the sweep by state: done, failed (in this session), running, left",
    "eta_seconds": "Expected seconds until the sweep ends; absent before its first epoch",
}


@functools.cache
def _gauge(name: str, *tag_keys: str) -> Gauge:
    return Gauge(f"raypatch_{name}", description=(GAUGES | SWEEP_GAUGES)[name], tag_keys=tag_keys)


@contextlib.contextmanager
def _kept_fresh(publish: Callable[[], None]) -> Iterator[None]:
    """Call `publish` now and every REFRESH_SECONDS from a thread."""
    over = threading.Event()

    def keep_fresh() -> None:
        publish()
        while not over.wait(REFRESH_SECONDS):
            publish()

    thread = threading.Thread(target=keep_fresh, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def sweep_gauges(name: str, progress: RunningSweep) -> Iterator[None]:
    """Offer the counts of trials and the ETA of a sweep as Ray's metrics.

    Call it in the driver, once Ray is connected.
    """

    def publish() -> None:
        for state, count in progress.counts().items():
            _gauge("trials", "sweep", "state").set(count, {"sweep": name, "state": state})
        eta = progress.eta_seconds()
        if eta is not None:
            _gauge("eta_seconds", "sweep").set(eta, {"sweep": name})

    with _kept_fresh(publish):
        yield


@contextlib.contextmanager
def trial_gauges(config: TrialConfig, level: str) -> Iterator[Callable[[EpochRow], None]]:
    """Offer scores and speed of a running trial's last epoch as Ray's metrics.

    level: that of each factor, as text. Yields what takes each epoch's row. Call in a Ray worker.
    """
    tags = {"trial": config.trial_id(), "dataset": config.dataset, "level": level}
    last_row: EpochRow | None = None

    # Before its first epoch a trial has no numbers.
    def publish() -> None:
        if last_row is not None:
            _publish_row(last_row, tags)

    def take(row: EpochRow) -> None:
        nonlocal last_row
        last_row = row
        publish()

    with _kept_fresh(publish):
        yield take


def _publish_row(row: EpochRow, tags: Mapping[str, str]) -> None:
    numbers = {
        "epoch": row.epoch,
        "val_loss": row.val["loss"],
        "images_per_second": row.images_per_second,
        "peak_memory_bytes": row.peak_memory_bytes,
    }
    for name, value in numbers.items():
        _gauge(name, *tags).set(value, dict(tags))
    for metric, score in row.val.items():
        if metric != "loss":
            _gauge("val_score", *tags, "metric").set(score, {**tags, "metric": metric})
