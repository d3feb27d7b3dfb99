"""The script for a GPU at hand for minutes runs from end to end on a CPU with small sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "check.jsonl"
    options = ["--device", "cpu", "--tiny", "--budget", "3600", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "check.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    parts = {line["part"] for line in lines}
    measured = {"recorded against eager", "bfloat16 against float32", "resume", "against the customary loop"}
    assert measured | {"largest volume", "compiled against eager", "whole grid", "real trial", "end"} <= parts
    assert not [line for line in lines if line["ok"] is False]
