"""Gauges of trials and sweeps, as Ray offers them to Prometheus."""

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypatch.sweep.watch.running import RunningSweep

from processes import wait_for
from tiny import epoch_row, make_images, tiny_trial

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module", autouse=True)
def _quick_ray() -> Iterator[None]:
    """A Ray that reports its metrics every second in place of ten, and gauges that are set as much oftener."""
    from raypatch.sweep.services.ray_setup import local_ray
    from raypatch.sweep.watch import gauges

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        patch.setattr(gauges, "REFRESH_SECONDS", 0.5)
        with local_ray(cpus=1, gpus=0):
            yield


def _metrics_page() -> str:
    """What the only node of the connected Ray offers to Prometheus."""
    import ray

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=30) as answer:
        page: str = answer.read().decode()
    return page


def test_gauges_last_as_long_as_their_trial(tmp_path: Path) -> None:
    from raypatch.sweep.watch.gauges import trial_gauges

    first, _ = tiny_trial(make_images(tmp_path / "images.npz"))
    second = first.model_copy(update={"seed": 1})

    def offered() -> set[str]:
        lines = _metrics_page().splitlines()
        gauges = [line for line in lines if line.startswith("ray_raypatch_val_loss{")]
        return {trial.trial_id() for trial in (first, second) for line in gauges if trial.trial_id() in line}

    with trial_gauges(first, "4") as take:
        take(epoch_row(1))
        wait_for(lambda: offered() == {first.trial_id()})
    with trial_gauges(second, "4") as take:  # in the same process, as a worker that is used again
        take(epoch_row(1))
        wait_for(lambda: offered() == {second.trial_id()})
        for _ in range(5):  # longer than Ray keeps a gauge that nobody sets
            time.sleep(1)
            assert offered() == {second.trial_id()}


def test_gauges_of_the_sweep_follow_its_progress(tmp_path: Path) -> None:
    from raypatch.sweep.watch.gauges import sweep_gauges

    config, _ = tiny_trial(make_images(tmp_path / "images.npz"), epochs=4)
    configs = [config.model_copy(update={"seed": seed}) for seed in range(3)]
    names = [each.trial_id() for each in configs]
    progress = RunningSweep(configs, dict.fromkeys(names, 8.0), done=5, side_by_side=1)

    def offered() -> dict[str, float]:
        lines = re.findall(r"^ray_raypatch_(trials|eta_seconds)\{(.*)\} (\S+)$", _metrics_page(), re.M)
        offers = [(name, dict(re.findall(r'(\w+)="(.*?)"', labels)), value) for name, labels, value in lines]
        assert {labels["sweep"] for _, labels, _ in offers} <= {"grid"}
        return {labels.get("state", name): float(value) for name, labels, value in offers}

    with sweep_gauges("grid", progress):
        wait_for(lambda: offered() == {"done": 5, "failed": 0, "running": 0, "left": 3})
        progress.started(names[0])
        progress.epoch(names[0], epoch_row(1, seconds=2.0))
        wait_for(lambda: offered() == {"done": 5, "failed": 0, "running": 1, "left": 2, "eta_seconds": 22.0})
    wait_for(lambda: offered() == {})
