"""A sweep can be watched: TensorBoard's files, Ray's dashboard in a browser, Prometheus, experiment trackers."""

import base64
import contextlib
import json
import os
import re
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from raypatch.results import EpochRow, SweepPaths, TrialPaths, append_epoch, read_config, read_epochs, write_epochs
from raypatch.sweep.guard import run_guarded
from raypatch.sweep.preflight import check_monitoring
from raypatch.sweep.watch.progress import SweepProgress
from raypatch.sweep.watch.tensorboard import EventFile, tag_of
from raypatch.training.loop import Interrupted

from browser import Browser, find_chromium
from tiny import make_images, tiny_trial

PROMETHEUS = shutil.which("prometheus")
PATIENCE = 300.0
TEXT = "document.body?.innerText ?? ''"
DOCKER = Path(__file__).parents[2] / "docker"


def _row(epoch: int, val_loss: float = 0.5) -> EpochRow:
    figures = dict.fromkeys(("train_loss", "val_accuracy", "val_balanced_accuracy", "val_auc", "lr"), 0.5)
    return EpochRow(epoch=epoch, val_loss=val_loss, seconds=1.0, images_per_second=9.0, **figures)


def _charts(paths: TrialPaths) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a trial: per chart, the value at each step; a step that comes twice is an error."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(paths.folder)).Reload()
    charts = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        charts[tag] = {point.step: point.value for point in points}
        assert len(charts[tag]) == len(points), tag
        assert [point.wall_time for point in points] == sorted(point.wall_time for point in points)
    return charts


def _expected(paths: TrialPaths) -> dict[str, dict[int, object]]:
    rows = read_epochs(paths.epochs)
    columns = [name for name in EpochRow.model_fields if name != "epoch"]
    return {
        tag_of(name): {row.epoch: pytest.approx(getattr(row, name), nan_ok=True) for row in rows} for name in columns
    }


def test_tensorboard_shows_every_epoch_once_after_an_interruption(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "images.npz"), epochs=4)
    sweep = SweepPaths(tmp_path / "run")
    paths = sweep.trial(config.trial_id())

    def interrupt(row: EpochRow) -> None:
        if row.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_guarded(config, sweep, options, on_epoch=interrupt, should_stop=lambda: False)
    assert _charts(paths) == _expected(paths)
    run_guarded(config, sweep, options, on_epoch=bool, should_stop=lambda: False)
    assert len(paths.event_files()) == 1
    assert _charts(paths) == _expected(paths)
    assert set(_charts(paths)["val/loss"]) == {1, 2, 3, 4}


def test_epochs_that_are_repeated_replace_those_on_disk(tmp_path: Path) -> None:
    paths = TrialPaths(tmp_path)
    for rows in ([_row(1), _row(2, 0.4), _row(3, 0.3)], [_row(1), _row(2, 0.2)]):  # back to the checkpoint of epoch 1
        write_epochs(paths.epochs, rows[:1])
        with contextlib.closing(EventFile(paths)) as events:
            for row in rows[1:]:
                append_epoch(paths.epochs, row)
                events.epoch(row)
        assert _charts(paths)["val/loss"] == {row.epoch: pytest.approx(row.val["loss"]) for row in rows}


def test_a_full_disk_ends_the_events_and_not_the_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = TrialPaths(tmp_path)
    append_epoch(paths.epochs, _row(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.closing(EventFile(paths)) as events:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))  # no file may grow beyond 16 bytes
        try:
            events.epoch(_row(1))
            events.epoch(_row(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [record.message[:39] for record in caplog.records] == ["no TensorBoard events from epoch 1 on: "]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"executor": "local", "dashboard": True}, "--dashboard goes with --executor ray, not local"),
        ({"executor": "local", "track": "mlflow"}, "--track goes with --executor ray, not local"),
        ({"track": "absent"}, "pip install 'raypatch[absent]'"),
    ],
)
def test_what_cannot_watch_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        check_monitoring(**({"executor": "ray", "dashboard": False, "track": "none"} | how))


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "~/.ray/auth_token"),
        ({"RAY_AUTH_TOKEN_PATH": "/x/t"}, "/x/t"),
        ({"RAY_AUTH_TOKEN": "s3cret"}, "$RAY_AUTH_TOKEN"),
    ],
)
def test_how_to_open_names_the_place_of_the_token(
    variables: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypatch.sweep.executors.ray_setup import how_to_open

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = how_to_open("127.0.0.1:8265")
    assert "http://127.0.0.1:8265" in line
    assert place in line
    assert "s3cret" not in line


class _Notebook:
    """The least that Tracker asks of a tracker's callback: it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def log_trial_start(self, trial: Any) -> None:
        self.told.append(("start", str(trial), trial.config["patch_size"]))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if result["epoch"] == 3:
            raise ConnectionError("the server went away")
        self.told.append(("epoch", result["training_iteration"], result["val_loss"]))

    def log_trial_end(self, trial: Any, *, failed: bool) -> None:
        self.told.append(("end", failed))


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_tracker_is_told_from_the_first_epoch_and_may_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from raypatch.sweep.watch.tracking import Tracker

    config, _ = tiny_trial(make_images(tmp_path / "images.npz"))
    paths, notebook = SweepPaths(tmp_path), _Notebook()
    epochs = paths.trial(config.trial_id()).epochs
    epochs.parent.mkdir(parents=True)
    trial = SimpleNamespace(trial_id="1", local_path="", config={"spec": {"trial": config.model_dump(mode="json")}})
    tracker = Tracker("mlflow", notebook, paths)
    tracker.on_trial_start(0, [], trial)
    append_epoch(epochs, _row(1))  # of an earlier session
    append_epoch(epochs, _row(2))
    for _ in range(2):  # the second time as after a crash of the worker
        tracker.on_trial_result(0, [], trial, {"epoch": 2})
    assert notebook.told == [("start", config.trial_id(), 4), ("epoch", 1, 0.5), ("epoch", 2, 0.5)]
    append_epoch(epochs, _row(3))
    tracker.on_trial_result(0, [], trial, {"epoch": 3})
    tracker.on_trial_complete(0, [], trial)
    assert [record.message for record in caplog.records] == ["--track mlflow stopped: the server went away"]
    assert len(notebook.told) == 3


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")  # of mlflow's
def test_mlflow_holds_every_epoch_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="no mlflow: pip install 'raypatch[mlflow]'")
    from raypatch.sweep.watch.tracking import make_tracker

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, _ = tiny_trial(make_images(tmp_path / "images.npz"))
    paths = SweepPaths(tmp_path)
    epochs = paths.trial(config.trial_id()).epochs
    epochs.parent.mkdir(parents=True)
    trial = SimpleNamespace(trial_id="1", local_path="", config={"spec": {"trial": config.model_dump(mode="json")}})
    tracker = make_tracker("mlflow", paths)
    tracker.setup()
    tracker.on_trial_start(0, [], trial)
    for epoch in (1, 2):
        append_epoch(epochs, _row(epoch, val_loss=1 / epoch))
        tracker.on_trial_result(0, [], trial, {"epoch": epoch})
    tracker.on_trial_complete(0, [], trial)

    store = mlflow.tracking.MlflowClient(f"sqlite:///{paths.mlflow}")
    experiment = store.get_experiment_by_name(tmp_path.name)
    (run,) = store.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (config.trial_id(), "FAILED")  # there is no result
    assert run.data.params["patch_size"] == "4"
    history = store.get_metric_history(run.info.run_id, "val_loss")
    assert {point.step: point.value for point in history} == {1: 1.0, 2: 0.5}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_wandb_keeps_a_run_for_each_trial(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="no wandb: pip install 'raypatch[wandb]'")
    words = [*_tiny_words(tmp_path, 8, 4, epochs=2), "--track", "wandb"]
    sweep = _start(tmp_path, *words, WANDB_MODE="offline")
    assert sweep.wait(PATIENCE) == 0, (tmp_path / "output").read_text("utf-8")
    paths = SweepPaths(tmp_path / "runs" / "demo")
    told = [path.read_bytes() for path in paths.folder.glob("wandb/offline-run-*/*.wandb")]
    trials = [trial.folder.name.encode() for trial in paths.trial_folders()]
    assert len(told) == len(trials) == 2
    for trial in trials:
        (mine,) = (content for content in told if trial in content)
        assert mine.count(b"val_loss") >= 2  # one for each epoch


@dataclass
class _Watched:
    """A sweep that runs with a dashboard."""

    folder: Path
    url: str
    token: str

    def get(self, path: str, token: str | None) -> Any:
        """JSON from the dashboard."""
        request = urllib.request.Request(self.url + path)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def _start(folder: Path, *words: str, **environment: str) -> "subprocess.Popen[bytes]":
    """Start a raypatch command; what it says goes to the file `output`."""
    command = [sys.executable, "-c", "from raypatch.cli.main import main; main()", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def _tiny_words(folder: Path, *patch_sizes: int, epochs: int) -> list[str]:
    data = make_images(folder / "images.npz")
    words = ["run", "demo", "--dataset", str(data), "--model", "test_vit", "--weights", "random", "--seed", "0"]
    words += ["--set", f"epochs={epochs}", "--set", "image_size=8", "--set", "batch_size=24", "--cpus-per-trial", "1"]
    return [*words, "--patch-size", ",".join(map(str, patch_sizes)), "--device", "cpu"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Watched]:
    folder = tmp_path_factory.mktemp("watched")
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32), "utf-8")
    token_file.chmod(0o600)
    words = [*_tiny_words(folder, 8, 4, 2, epochs=100_000), "--dashboard"]
    sweep = _start(folder, *words, RAY_AUTH_TOKEN_PATH=str(token_file))
    try:
        said = re.compile(r"^Ray's dashboard: .*\n", re.M)
        output = _wait_for(lambda: said.search((folder / "output").read_text("utf-8")), sweep)
        line = output[0]
        assert str(token_file) in line
        url, token = line.split()[2], token_file.read_text("utf-8")
        assert url.startswith("http://127.0.0.1:")
        assert token not in line
        paths = SweepPaths(folder / "runs" / "demo")
        _wait_for(lambda: any(trial.epochs.exists() for trial in paths.trial_folders()), sweep)
        yield _Watched(paths.folder, url, token)
    finally:
        sweep.terminate()
        sweep.wait(PATIENCE)


def _wait_for(condition: Callable[[], Any], sweep: "subprocess.Popen[bytes] | None" = None) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert sweep is None or sweep.poll() is None, "the sweep ended"
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.5)
    return found


def _running(watched: _Watched) -> set[str]:
    return {trial.folder.name for trial in SweepPaths(watched.folder).trial_folders() if trial.lock.exists()}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
def test_dashboard_asks_for_the_token_and_lists_trials_by_name(watched: _Watched) -> None:
    for token, code in ((None, 401), ("wrong", 403)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            watched.get("/logical/actors", token)
        assert refused.value.code == code
        refused.value.close()
    running = _running(watched)
    actors = watched.get("/logical/actors", watched.token)["data"]["actors"].values()
    trials = {actor["reprName"] for actor in actors if actor["className"] == "RaypatchTrial"}
    assert running <= trials


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium")
def test_dashboard_in_a_browser(watched: _Watched) -> None:
    with contextlib.closing(Browser()) as page:
        page.call("Emulation.setDeviceMetricsOverride", width=1600, height=900, deviceScaleFactor=1, mobile=False)
        page.call("Page.navigate", url=f"{watched.url}/#/actors")
        _wait_for(lambda: page.evaluate("document.querySelector('input[type=password]') !== null"))
        assert "images-p" not in page.evaluate(TEXT)
        page.evaluate("document.querySelector('input[type=password]').focus()")
        page.call("Input.insertText", text=watched.token)
        button = "[...document.querySelectorAll('button')].find(b => /submit/i.test(b.innerText))"
        _wait_for(lambda: page.evaluate(f"{button}?.disabled === false"))
        page.evaluate(f"{button}?.click()")
        running = _running(watched)
        _wait_for(lambda: all(trial in page.evaluate(TEXT) for trial in running))
        picture = page.call("Page.captureScreenshot")["data"]
        (watched.folder / "actors.png").write_bytes(base64.b64decode(picture))
        assert "RaypatchTrial" in page.evaluate(TEXT)


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
def test_prometheus_reads_the_gauges_of_running_trials(watched: _Watched, tmp_path: Path) -> None:
    from raypatch.sweep.watch.gauges import GAUGES

    sweep = SweepPaths(watched.folder)
    with _prometheus(tmp_path) as query:
        for gauge in GAUGES:
            (series, *_) = _wait_for(lambda gauge=gauge: query(f"ray_raypatch_{gauge}"))
            labels, value = series["metric"], float(series["value"][1])
            paths = sweep.trial(labels["trial"])
            config = read_config(paths.config)
            assert (labels["dataset"], labels["patch_size"]) == (config.dataset, str(config.patch_size))
            if gauge == "peak_memory_bytes":
                assert 1e8 < value < 1e10
            else:
                assert value in {getattr(row, gauge) for row in read_epochs(paths.epochs)}
        first = {series["metric"]["trial"] for series in query("ray_raypatch_epoch")}
        assert first <= _running(watched)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus: apt-get install prometheus")
def test_every_panel_of_the_grafana_dashboard_has_data(watched: _Watched, tmp_path: Path) -> None:
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
                series = _wait_for(lambda expression=expression: query(expression))
                (label,) = re.findall(r"{{(\w+)}}", target["legendFormat"])
                found[panel["title"]] = {each["metric"][label]: float(each["value"][1]) for each in series}
        assert {each["metric"]["sweep"] for each in query("ray_raypatch_trials")} == {"demo"}
    print(json.dumps(found, indent=1))
    assert set(found["Trials"]) == {"done", "failed", "running", "left"}
    assert sum(found["Trials"].values()) == 3
    assert found["ETA"]["demo"] > 0
    for title in ("Validation AUC", "Images per second", "GPU memory"):
        assert set(found[title]) <= {trial.folder.name for trial in SweepPaths(watched.folder).trial_folders()}


def _metrics_page() -> str:
    """What the only node of the connected Ray offers to Prometheus."""
    import ray

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=30) as answer:
        page: str = answer.read().decode()
    return page


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_gauges_last_as_long_as_their_trial(tmp_path: Path) -> None:
    from raypatch.sweep.executors.ray_setup import local_ray
    from raypatch.sweep.watch.gauges import trial_gauges

    first, _ = tiny_trial(make_images(tmp_path / "images.npz"))
    second = first.model_copy(update={"seed": 1})
    with local_ray(cpus=1, gpus=0):

        def offered() -> set[str]:
            lines = _metrics_page().splitlines()
            gauges = [line for line in lines if line.startswith("ray_raypatch_val_loss{")]
            return {trial.trial_id() for trial in (first, second) for line in gauges if trial.trial_id() in line}

        with trial_gauges(first) as take:
            take(_row(1))
            _wait_for(lambda: offered() == {first.trial_id()})
        with trial_gauges(second) as take:  # in the same process, as a worker that is used again
            take(_row(1))
            _wait_for(lambda: offered() == {second.trial_id()})
            for _ in range(30):  # longer than Ray keeps a gauge that nobody sets
                time.sleep(1)
                assert offered() == {second.trial_id()}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_gauges_of_the_sweep_follow_its_progress(tmp_path: Path) -> None:
    from raypatch.sweep.executors.ray_setup import local_ray
    from raypatch.sweep.watch.gauges import sweep_gauges

    config, _ = tiny_trial(make_images(tmp_path / "images.npz"), epochs=4)
    configs = [config.model_copy(update={"seed": seed}) for seed in range(3)]
    names = [each.trial_id() for each in configs]
    progress = SweepProgress(configs, dict.fromkeys(names, 8.0), done=5, side_by_side=1)
    with local_ray(cpus=1, gpus=0):

        def offered() -> dict[str, float]:
            lines = re.findall(r"^ray_raypatch_(trials|eta_seconds)\{(.*)\} (\S+)$", _metrics_page(), re.M)
            offers = [(name, dict(re.findall(r'(\w+)="(.*?)"', labels)), value) for name, labels, value in lines]
            assert {labels["sweep"] for _, labels, _ in offers} <= {"grid"}
            return {labels.get("state", name): float(value) for name, labels, value in offers}

        with sweep_gauges("grid", progress):
            _wait_for(lambda: offered() == {"done": 5, "failed": 0, "running": 0, "left": 3})
            progress.started(names[0])
            progress.epoch(names[0], _row(1).model_copy(update={"seconds": 2.0}))
            _wait_for(lambda: offered() == {"done": 5, "failed": 0, "running": 1, "left": 2, "eta_seconds": 22.0})
        _wait_for(lambda: offered() == {})
