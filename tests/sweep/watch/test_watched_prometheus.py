"""Prometheus reads the gauges of a sweep, and every panel of the Grafana dashboard finds its series there."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypatch.results import SweepPaths, read_config, read_epochs

from processes import PATIENCE, wait_for
from watched import Watched

PROMETHEUS = shutil.which("prometheus")
DOCKER = Path(__file__).parents[3] / "docker"


@contextlib.contextmanager
def _prometheus(folder: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Debian's Prometheus with the configuration that comes along; gives a function that queries it."""
    assert PROMETHEUS is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PROMETHEUS, f"--config.file={DOCKER / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def query(expression: str) -> list[dict[str, Any]]:
        address = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.URLError:  # it has not started yet
            return []
        return found

    try:
        yield query
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus: apt-get install prometheus")
def test_prometheus_reads_the_gauges_of_running_trials(watched: Watched, tmp_path: Path) -> None:
    from raypatch.sweep.watch.gauges import GAUGES

    sweep = SweepPaths(watched.folder)
    with _prometheus(tmp_path) as query:
        for gauge in GAUGES:
            (series, *_) = wait_for(lambda gauge=gauge: query(f"ray_raypatch_{gauge}"))
            labels, value = series["metric"], float(series["value"][1])
            paths = sweep.trial(labels["trial"])
            config = read_config(paths.config)
            assert (labels["dataset"], labels["level"]) == (config.dataset, str(config.patch_size))
            if gauge == "peak_memory_bytes":
                assert 1e8 < value < 1e10
            else:
                column = f"val_{labels['metric']}" if gauge == "val_score" else gauge
                assert value in {row.flat()[column] for row in read_epochs(paths.epochs)}
        first = {series["metric"]["trial"] for series in query("ray_raypatch_epoch")}
        assert first <= watched.running()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus: apt-get install prometheus")
def test_every_panel_of_the_grafana_dashboard_has_data(watched: Watched, tmp_path: Path) -> None:
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "raypatch.json").read_text("utf-8"))
    provisioned = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text("utf-8"))
    (variable,) = dashboard["templating"]["list"]
    assert variable["query"] == "label_values(ray_raypatch_trials, sweep)"
    with _prometheus(tmp_path) as query:
        found = {}
        for panel in dashboard["panels"]:
            assert panel["datasource"]["uid"] == provisioned["datasources"][0]["uid"]
            for target in panel["targets"]:
                expression = target["expr"].replace("$sweep", variable["allValue"])
                series = wait_for(lambda expression=expression: query(expression))
                label = re.findall(r"{{(\w+)}}", target["legendFormat"])[0]
                found[panel["title"]] = {each["metric"][label]: float(each["value"][1]) for each in series}
        assert {each["metric"]["sweep"] for each in query("ray_raypatch_trials")} == {"demo"}
    print(json.dumps(found, indent=1))
    assert set(found["Trials"]) == {"done", "failed", "running", "left"}
    assert sum(found["Trials"].values()) == 3
    assert found["ETA"]["demo"] > 0
    for title in ("Validation scores", "Images per second", "GPU memory"):
        assert set(found[title]) <= {trial.folder.name for trial in SweepPaths(watched.folder).trial_folders()}
