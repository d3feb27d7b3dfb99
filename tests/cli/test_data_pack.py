"""`raypatch data pack` and `data check` from the command line, and a source in place of a dataset."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from raypatch.cli.main import app
from raypatch.data.layout.npz import inspect_npz
from raypatch.study import load_study
from raypatch.study.resolve import resolve_trials


def make_folder(root: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("ill", "well"):
        for index in range(15):
            path = root / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return root


def test_pack_then_check(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "own")
    out = tmp_path / "own.npz"
    packed = CliRunner().invoke(app, ["data", "pack", str(source), "--out", str(out), "--folds", "3"])
    assert packed.exit_code == 0, packed.output
    assert "--set fold=0,1,2 runs them" in packed.output
    assert inspect_npz(out).folds == 3
    checked = CliRunner().invoke(app, ["data", "check", str(out), "--out", str(tmp_path / "check")])
    assert checked.exit_code == 0, checked.output
    assert "to look after:" in checked.output
    assert {path.name for path in (tmp_path / "check").iterdir()} == {"check.html", "check.json", "contact.png"}


def test_a_folder_stands_for_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = make_folder(tmp_path / "own")
    study = load_study("demo").override({"dataset": [str(source)], "patch_size": [4], "seed": [0]})
    found = resolve_trials(study)
    (name,) = {trial.dataset for trial in found.trials}
    assert found.files[name].parent == tmp_path / "home" / ".cache" / "raypatch" / "packed"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--shares", "1,2"], "--shares '1,2' must be three numbers"),
        (["--channels", "2"], "--channels 2 must be 1 or 3"),
        (["--intensity", "window:5"], "--intensity 'window:5' must be display"),
        (["--intensity", "percentile:5,101"], "percentiles between 0 and 100"),
        (["--columns", "image=a"], "holds no .csv"),
    ],
)
def test_wrong_options_are_explained(tmp_path: Path, option: list[str], message: str) -> None:
    source = make_folder(tmp_path / "own")
    result = CliRunner().invoke(app, ["data", "pack", str(source), "--out", str(tmp_path / "o.npz"), *option])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
