"""NVIDIA's Multi-Process Service, by a stand-in for its control program."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raypatch.config import RunOptions
from raypatch.results import SweepPaths
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.ray import RayExecutor
from raypatch.sweep.services import mps
from raypatch.sweep.services.mps import CONTROL, PIPES, simultaneous_kernels
from raypatch.sweep.session import ExecutorOptions, Session
from raypatch.sweep.stop import StopRequest

STAND_IN = """#!/bin/sh
printf '%s|%s|%s\\n' "$*" "$CUDA_MPS_PIPE_DIRECTORY" "$(cat)" >> "$STAND_IN_LOG"
exit "${STAND_IN_CODE:-0}"
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in was asked: its arguments, where it keeps its pipes, and what it was told."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "asked"))
    monkeypatch.delenv(PIPES, raising=False)
    monkeypatch.setattr(mps, "USUAL_PIPES", tmp_path / "nobody")
    return tmp_path / "asked"


def test_a_service_of_its_own_is_started_in_private_used_by_processes_and_stopped(asked: Path) -> None:
    with simultaneous_kernels() as together:
        assert together
        pipes = Path(os.environ[PIPES])
        assert stat.S_IMODE(pipes.parent.stat().st_mode) == 0o700
        code = f"import os; print(os.environ[{PIPES!r}])"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert child.stdout.strip() == str(pipes)
        assert asked.read_text() == f"-d|{pipes}|\n"
    assert asked.read_text() == f"-d|{pipes}|\n|{pipes}|quit\n"
    assert PIPES not in os.environ
    assert not pipes.parent.exists()


def test_it_is_stopped_when_a_sweep_fails(asked: Path) -> None:
    with pytest.raises(KeyboardInterrupt), simultaneous_kernels():
        raise KeyboardInterrupt
    assert asked.read_text().endswith("|quit\n")


def test_one_that_the_user_runs_stays_in_charge(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIPES, "/somewhere")
    with simultaneous_kernels() as together:
        assert together
        assert os.environ[PIPES] == "/somewhere"
    assert not asked.exists()


def test_a_program_that_refuses_or_is_missing_leaves_turns(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_CODE", "1")
    with simultaneous_kernels() as together:
        assert not together
        assert PIPES not in os.environ
    assert asked.read_text().count("\n") == 1, "what did not start is not stopped"
    monkeypatch.setenv("PATH", "")
    with simultaneous_kernels() as together:
        assert not together


@pytest.mark.parametrize(
    ("options", "share", "slots", "starts"),
    [({}, 0.25, 4, True), ({"mps": False}, 0.25, 4, False), ({}, 1.0, 1, False), ({}, 0.0, 2, False)],
    ids=["shared", "switched off", "a whole card each", "no card"],
)
def test_a_sweep_starts_it_where_trials_share_a_card(
    asked: Path, tmp_path: Path, options: dict[str, bool], share: float, slots: int, starts: bool
) -> None:
    said: list[str] = []
    execution = ExecutorOptions(**options)  # type: ignore[arg-type]
    session = Session(
        SweepPaths(tmp_path), RunOptions(device="cpu"), execution, StopRequest(tmp_path / "stop"), say=said.append
    )
    with RayExecutor(session)._sharing(Placement(1, share, slots)):
        assert (PIPES in os.environ) == starts
    assert asked.exists() == starts
    assert not said
