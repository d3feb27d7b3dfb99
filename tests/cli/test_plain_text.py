"""What is printed on a terminal that shows ASCII alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypatch.cli.plain_text import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("86.3 ± 1.2 (80.1–90.9)", "86.3 +- 1.2 (80.1-90.9)"),
        ("−0.2 × 3 → “χ²”", '-0.2 x 3 -> "chi2"'),
        ("Demšar, Läsion, Weiß", "Demsar, Lasion, Weiss"),
        ("肺", "?"),
        ("plain | text", "plain | text"),
    ],
)
def test_signs_have_stand_ins_and_letters_no_accents(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    "variables",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=["C", "POSIX", "ascii", "latin-1"],
)
def test_a_command_prints_what_the_terminal_has(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "study.yaml").write_text("# 1 – 2 ≤ 3, “Läsion”, 肺\nname: mine\n", "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))}
    words = [sys.executable, "-c", "from raypatch.cli.main import main; main()", "spaces", "study.yaml"]
    done = subprocess.run(words, cwd=tmp_path, env=environment | variables, capture_output=True, timeout=60)
    letter = b"L\xe4sion" if variables.get("PYTHONIOENCODING") == "latin-1" else b"Lasion"
    assert done.stderr == b""
    assert done.stdout == b'# 1 - 2 <= 3, "%s", ?\nname: mine\n' % letter


def test_a_message_to_the_user_does_too(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "from raypatch.cli.main import main; main()", "spaces", "Läsion – 肺.yaml"]
    done = subprocess.run(words, cwd=tmp_path, env=os.environ | {"LC_ALL": "C"}, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"Lasion - ?.yaml" in done.stderr
