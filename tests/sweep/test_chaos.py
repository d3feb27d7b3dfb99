"""Killed with -9 at 20 random moments, driver or worker, a sweep ends with the same bits as an undisturbed one."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from raypatch.results import SweepPaths

from tiny import make_images, read_figures

KILLS = 20
EPOCHS = 12
PATIENCE = 600.0


def _write_space(tmp_path: Path) -> Path:
    flat = make_images(tmp_path / "flat.npz")
    deep = make_images(tmp_path / "deep.npz", dimensions=3)
    path = tmp_path / "chaos.yaml"
    path.write_text(f"""
name: chaos
fixed: {{model: test_vit, weights: random, epochs: {EPOCHS}, batch_size: 4, lr: 1.0e-3}}
grid: {{dataset: [{flat}, {deep}], patch_size: [8, 4, 2], seed: [0, 1]}}
""")
    return path


def _start(tmp_path: Path, space: Path, name: str, executor: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from raypatch.cli.main import main; main()", "run", str(space), "--name", name]
    command += ["--executor", executor, "--cpus-per-trial", "1", "--device", "cpu", "--retries", str(KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _rows(paths: SweepPaths) -> int:
    """Epochs trained so far, in all trials: the clock of this test, whatever the machine's speed."""
    return sum(
        trial.epochs.read_bytes().count(b"\n") if trial.epochs.exists() else 0 for trial in paths.trial_folders()
    )


def _workers(paths: SweepPaths, driver: int) -> list[int]:
    """Process ids of those who hold a trial's lock."""
    holders = []
    for trial in paths.trial_folders():
        try:
            holder = int(trial.lock.read_text().split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if holder != driver and psutil.pid_exists(holder):
            holders.append(holder)
    return holders


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descendants(driver: int) -> set[int]:
    try:
        return {process.pid for process in psutil.Process(driver).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _finished(paths: SweepPaths) -> dict[str, int]:
    """When each finished trial's result was written: a trial that ran again would have a new time."""
    return {t.folder.name: t.result.stat().st_mtime_ns for t in paths.trial_folders() if t.result.exists()}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3000)
def test_twenty_kills_change_no_bit(tmp_path: Path) -> None:
    seed = int(os.environ.get("RAYPATCH_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"chaos seed {seed}: repeat with RAYPATCH_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    space = _write_space(tmp_path)
    undisturbed = _start(tmp_path, space, "undisturbed", "local")
    output, _ = undisturbed.communicate(timeout=PATIENCE)
    assert undisturbed.returncode == 0, output

    paths = SweepPaths(tmp_path / "runs" / "chaos")
    moments = sorted(chance.sample(range(1, 12 * EPOCHS - 8), KILLS))
    finished: dict[str, int] = {}
    seen: set[int] = set()
    victims: list[str] = []
    driver = _start(tmp_path, space, "chaos", "ray")
    while len(victims) < KILLS:
        deadline = time.monotonic() + PATIENCE
        while _rows(paths) < moments[len(victims)] and driver.poll() is None:
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.005)
        seen |= _descendants(driver.pid)
        time.sleep(chance.uniform(0, 0.1))  # anywhere in an epoch: a step, a checkpoint, a result
        workers = _workers(paths, driver.pid)
        if workers and chance.random() < 0.5:
            victims.append("worker")
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
        else:
            victims.append("driver")
            driver.kill()
            driver.communicate(timeout=PATIENCE)
            driver = _start(tmp_path, space, "chaos", "ray")
        now = _finished(paths)
        assert {name: now[name] for name in finished} == finished, "a finished trial ran again"
        finished = now
    output, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, output
    print(f"killed: {victims.count('driver')} drivers, {victims.count('worker')} workers")

    assert {name: _finished(paths)[name] for name in finished} == finished
    assert read_figures(paths) == read_figures(SweepPaths(tmp_path / "runs" / "undisturbed"))
    assert not [path for path in paths.folder.rglob("*") if path.name.startswith(".") or path.name == "last.ckpt"]
    record = json.loads(paths.record.read_text())
    assert len(record["trials"]) == 12
    deadline = time.monotonic() + 60
    while alive := [pid for pid in seen if _alive(pid)]:
        assert time.monotonic() < deadline, f"processes stayed behind: {alive}"
        time.sleep(0.2)
