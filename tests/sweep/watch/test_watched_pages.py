"""The pages that others make of a run folder, each by its own server and seen in a browser: TensorBoard, Optuna's."""

import base64
import contextlib
import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from raypatch.config import RunOptions
from raypatch.results import SweepPaths
from raypatch.sweep.run import run_sweep
from raypatch.sweep.session import ExecutorOptions

from browser import Browser, find_chromium
from processes import PATIENCE, wait_for
from tiny import make_images, tiny_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium"),
]
TEXT = "document.body?.innerText ?? ''"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SweepPaths:
    """The run folder of a small search."""
    folder = tmp_path_factory.mktemp("pages")
    search = {"fields": {"lr": {"loguniform": [1e-5, 1e-1]}}, "samples": 3, "grace_epochs": 1}
    study = tiny_study(make_images(folder / "images.npz"), search=search)
    options = RunOptions(device="cpu", threads=1)
    run_sweep(study, folder / "run", options, ExecutorOptions(executor="local"))
    return SweepPaths(folder / "run")


@contextlib.contextmanager
def _served(main: str, words: Sequence[object]) -> Iterator[str]:
    """Run a server's main function, `module:function`, on a free port of this machine; its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module, _, function = main.partition(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    command = [sys.executable, "-c", code, *map(str, words), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(port), server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _open(page: Browser, address: str, words: Sequence[str], picture: Path) -> None:
    """Open a page, wait until it shows all of these words, and keep a picture of it."""
    page.call("Emulation.setDeviceMetricsOverride", width=1400, height=1000, deviceScaleFactor=1, mobile=False)
    page.call("Page.navigate", url=address)
    wait_for(lambda: all(word in page.evaluate(TEXT) for word in words))
    picture.write_bytes(base64.b64decode(page.call("Page.captureScreenshot")["data"]))


def test_tensorboard_shows_the_charts_of_every_trial(searched: SweepPaths) -> None:
    trials = [f"trials/{trial.folder.name}" for trial in searched.trial_folders()]
    with (
        _served("tensorboard.main:run_main", ["--logdir", searched.folder]) as address,
        contextlib.closing(Browser()) as page,
    ):
        _open(page, address, [*trials, "train"], searched.folder / "tensorboard.png")


def test_optuna_dashboard_shows_the_search_of_every_level(searched: SweepPaths) -> None:
    if importlib.util.find_spec("optuna_dashboard") is None:
        pytest.skip("no optuna-dashboard: pip install optuna-dashboard")
    with (
        _served("optuna_dashboard._cli:main", [searched.studies]) as address,
        contextlib.closing(Browser()) as page,
    ):
        _open(page, address, ["images-p8", "images-p4", "MINIMIZE"], searched.folder / "optuna.png")
        _open(page, f"{address}/dashboard/studies/0", ["Best Trial", "lr"], searched.folder / "optuna_study.png")
