"""Commands as processes of their own: started, watched, killed at a chosen moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raypatch.results import EpochRow, SweepPaths
from raypatch.training import loop

from tiny import make_images

RAYPATCH = (sys.executable, "-c", "from raypatch.cli.main import main; main()")
PATIENCE = 300.0


def start(words: Sequence[object], folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """Start a raypatch command in `folder`; what it says goes to the file `output` there (see `said`)."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [*RAYPATCH, *map(str, words)],
            cwd=folder,
            env=calm(environment),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def demo_words(folder: Path, *patch_sizes: int, epochs: int) -> list[str]:
    """The words of a small sweep on made images, which are written into `folder`."""
    data = make_images(folder / "images.npz")
    words = [
        "run",
        "demo",
        "--name",
        "demo",
        "--dataset",
        str(data),
        "--model",
        "test_vit",
        "--weights",
        "random",
        "--seed",
        "0",
    ]
    words += ["--set", f"epochs={epochs}", "--set", "image_size=8", "--set", "batch_size=24", "--cpus-per-trial", "1"]
    return [*words, "--patch-size", ",".join(map(str, patch_sizes)), "--device", "cpu"]


def calm(environment: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment of a command that shares the machine with others."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **environment}


def said(folder: Path) -> str:
    """What the commands started in `folder` have written so far."""
    return (folder / "output").read_text("utf-8", errors="replace")


def wait_for(
    condition: Callable[[], Any], process: "subprocess.Popen[bytes] | None" = None, *, every: float = 0.1
) -> Any:
    """Return what `condition` gives once it is true. Fails after PATIENCE, and when `process` ends before."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process is None or process.poll() is None, "the command ended"
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(every)
    return found


def epochs_on_disk(paths: SweepPaths) -> int:
    """Epochs trained so far, in all trials: a clock that goes as fast as the machine."""
    rows = 0
    for trial in paths.trial_folders():
        if trial.epochs.exists():
            rows += trial.epochs.read_bytes().count(b"\n")
    return rows


@contextmanager
def stopped_after(epochs: int) -> Iterator[None]:
    """A sweep in this process gets a real SIGTERM once it has trained so many epochs, however fast the machine."""
    left = epochs
    append = loop.append_epoch

    def append_and_count(path: Path, row: EpochRow) -> None:
        nonlocal left
        append(path, row)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "append_epoch", append_and_count)
        yield
