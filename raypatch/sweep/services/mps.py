"""NVIDIA's Multi-Process Service for the time of a sweep: without it a GPU runs one process's kernels at a time."""

import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from raypatch.machine.environment import changed_environment

logger = logging.getLogger(__name__)

CONTROL = "nvidia-cuda-mps-control"

PIPES = "CUDA_MPS_PIPE_DIRECTORY"
"""Where programs look for a service; one that the user has set up stays in charge."""

USUAL_PIPES = Path("/tmp/nvidia-mps")  # noqa: S108  NVIDIA's own default
"""Where they look when the variable is not set."""

ANSWER_SECONDS = 30.0


@contextlib.contextmanager
def simultaneous_kernels() -> Iterator[bool]:
    """Start a service of this sweep's own, which processes started meanwhile use; at the end, stop it.

    It speaks through pipes in a folder that only this user can read. Gives whether kernels of several
    processes run at once: not where the program is missing or refuses. Then trials take turns, which
    costs time alone.
    """
    if PIPES in os.environ or (USUAL_PIPES / "control").exists():
        # The user's own service: programs find it by themselves.
        yield True
        return
    if shutil.which(CONTROL) is None:
        yield False
        return
    with tempfile.TemporaryDirectory(prefix="raypatch-mps-") as folder:
        places = {PIPES: f"{folder}/pipes", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/logs"}
        for place in places.values():
            Path(place).mkdir()
        if not _ask(["-d"], places):
            yield False
            return
        try:
            with changed_environment(places):
                yield True
        finally:
            _ask([], places, say="quit\n")


def _ask(arguments: list[str], places: Mapping[str, str], *, say: str = "") -> bool:
    """Run the control program; return whether it did as it was asked."""
    try:
        done = subprocess.run(
            [CONTROL, *arguments],
            input=say,
            env={**os.environ, **places},
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
            # Ctrl-C is for the sweep, which stops the service last.
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s: %s", CONTROL, error)
        return False
    if done.returncode:
        logger.warning("%s ended with %d: %s", CONTROL, done.returncode, (done.stderr or done.stdout).strip())
    return done.returncode == 0
