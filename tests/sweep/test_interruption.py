"""Signals in a real terminal, and a disk that fills up: clear words, nothing lost, and it goes on afterwards."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from raypatch.results import SweepPaths

from processes import PATIENCE, RAYPATCH, calm, said, start, wait_for
from tiny import make_images

TINY = ("--model", "test_vit", "--weights", "random", "--patch-size", "8,4", "--device", "cpu", "--cpus-per-trial", "1")


class Terminal:
    """A command in a pseudo-terminal of a given width; `text` is all that it wrote."""

    def __init__(self, words: list[str], folder: Path, columns: int) -> None:
        self._master, slave = pty.openpty()
        environment = calm({"COLUMNS": str(columns), "LINES": "30", "TERM": "xterm"})
        self.process = subprocess.Popen(
            [*RAYPATCH, *words],
            cwd=folder,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = ""

    def read(self) -> None:
        try:
            while chunk := os.read(self._master, 65536):
                self.text += chunk.decode(errors="replace")
        except (BlockingIOError, OSError):
            pass

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text[-2000:]}"
            assert self.process.poll() is None, self.text[-2000:]
            self.read()
            time.sleep(0.05)

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text[-2000:]
            self.read()
            time.sleep(0.05)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    data = make_images(tmp_path / "own.npz")
    return ["run", "demo", "--name", "demo", "--dataset", str(data), *TINY, "--seed", "0", "--set", "epochs=9999"]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "columns", "executor"),
    [(signal.SIGINT, 80, "ray"), (signal.SIGINT, 160, "local"), (signal.SIGTERM, 80, "local")],
)  # SIGTERM to Ray: the next, and test_a_signal_stops_ray_within_a_step_and_leaves_nothing
def test_one_signal_stops_safely_and_names_the_command_that_continues(
    tmp_path: Path, endless: list[str], number: signal.Signals, columns: int, executor: str
) -> None:
    terminal = Terminal([*endless, "--executor", executor], tmp_path, columns)
    try:
        terminal.wait_for(r" [1-9]\d*/9999")
        if number == signal.SIGINT:
            os.killpg(terminal.process.pid, number)  # as a terminal does for Ctrl-C: Ray's processes get it too
        else:
            terminal.process.send_signal(number)
        assert terminal.end() == 130
    finally:
        terminal.close()
    said = re.sub(r"\s+", "", terminal.text)
    assert f"stopped({number.name});tocontinue:raypatchresume{tmp_path}/runs/demo" in said
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text)
    assert max(len(line) for line in re.split(r"[\r\n]+", plain) if "epoch" in line or "9999" in line) <= columns
    folder = tmp_path / "runs" / "demo"
    assert not list(folder.rglob(".*"))
    assert list(folder.rglob("last.ckpt"))


@pytest.mark.slow
@pytest.mark.ray
def test_sigterm_to_all_processes_stops_ray_in_time_and_leaves_none(tmp_path: Path, endless: list[str]) -> None:
    process = start([*endless, "--executor", "ray"], tmp_path)
    wait_for(lambda: list(tmp_path.rglob("last.ckpt")), process)
    beneath = psutil.Process(process.pid).children(recursive=True)
    assert len(beneath) > 5  # Ray's own, and the trials
    # As systemd and Slurm do; `timeout` and a shell reach only those of the group, which are as many.
    for each in [process, *beneath]:
        each.send_signal(signal.SIGTERM)
    assert process.wait(15) == 130
    assert f"stopped (SIGTERM); to continue: raypatch resume {tmp_path}/runs/demo" in said(tmp_path)
    gone, alive = psutil.wait_procs(beneath, timeout=5)
    assert not alive
    assert len(gone) == len(beneath)
    for log in tmp_path.rglob("train.log"):
        assert "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.ray
def test_second_signal_stops_at_once_and_the_folder_can_be_taken_up(tmp_path: Path, endless: list[str]) -> None:
    terminal = Terminal([*endless, "--executor", "ray"], tmp_path, 100)
    try:
        terminal.wait_for(r" [1-9]\d*/9999")
        terminal.process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # two that arrive together are one
        terminal.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        terminal.end()
        assert time.monotonic() - began < 10
    finally:
        terminal.close()
    again = [*endless[:-2], "--set", "epochs=2", "--executor", "local"]
    assert start(again, tmp_path).wait(PATIENCE) == 0, said(tmp_path)
    assert "2 trials done" in said(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("executor", ["ray", "local"])
def test_full_disk_stops_the_sweep_and_loses_nothing(tmp_path: Path, small_disk: Path, executor: str) -> None:
    data = make_images(tmp_path / "own.npz")
    words = ["run", "demo", "--name", "demo", "--dataset", str(data), *TINY, "--seed", "0", "--set", "epochs=60"]
    words += ["--set", "batch_size=2", "--runs-dir", str(small_disk), "--executor", executor]
    paths = SweepPaths(small_disk / "demo")
    process = start(words, tmp_path)
    wait_for(lambda: list(paths.folder.rglob("last.ckpt")), process, every=0.01)
    filler = small_disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, bytes(1 << 14))
    os.close(descriptor)
    assert process.wait(PATIENCE) == 3, said(tmp_path)
    output = said(tmp_path)
    assert "halted (no space left in" in output
    assert "make space" in output
    assert "Traceback" not in output
    assert "failed" not in output.replace("0 failed", "")
    filler.unlink()
    assert not list(paths.folder.rglob("*.tmp"))

    assert start(words, tmp_path).wait(PATIENCE) == 0, said(tmp_path)
    assert "2 trials done, 0 failed, 0 left" in said(tmp_path)
