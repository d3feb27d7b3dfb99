"""raypatch in Python: light to import, the same functions as the command line's, safe to interrupt."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import raypatch
from raypatch.api import change_study
from raypatch.study import load_study

from tiny import make_images

STUDY = {
    "name": "mine",
    "compare": "patch_size",
    "fixed": {"model": "test_vit", "weights": "random", "epochs": 2, "batch_size": 8},
    "grid": {"patch_size": [8, 4], "seed": [0]},
}
HOW = {"executor": "local", "device": "cpu", "threads": 1}


def test_import_is_light() -> None:
    code = "import raypatch, sys; print([m for m in ('torch', 'ray', 'pandas', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_asking_for_the_api_needs_neither_torch_nor_ray_nor_pandas() -> None:
    code = "import raypatch, sys; raypatch.run; print([m for m in ('torch', 'ray', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_what_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        raypatch.runn  # noqa: B018


def test_run_load_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(make_images(tmp_path / "own.npz"))
    outcome = raypatch.run(STUDY, dataset=data, **HOW)
    assert outcome.folder == tmp_path / "runs" / "mine-own"
    assert (outcome.ok, outcome.left, outcome.stopped) == (2, 0, None)
    assert "2 trials done" in capsys.readouterr().out
    trials = raypatch.load(outcome.folder)
    assert sorted(trials["patch_size"]) == [4, 8]
    report = raypatch.report(str(outcome.folder), formats=["md"])
    assert "own" in report.text
    assert (outcome.folder / "report" / "report.md").is_file()
    again = raypatch.resume(outcome.folder)
    assert (again.ok, again.left) == (2, 0)


def test_an_interrupt_stops_safely_and_the_same_call_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(make_images(tmp_path / "own.npz"))
    before = signal.getsignal(signal.SIGINT)

    def interrupt_once_it_trains() -> None:
        import time

        while not list(tmp_path.glob("runs/*/trials/*/epochs.jsonl")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_once_it_trains)
    thread.start()
    outcome = raypatch.run(STUDY, dataset=data, epochs=300, **HOW)
    thread.join()
    assert outcome.stopped == "SIGINT"
    assert outcome.left > 0
    assert f"to continue: raypatch resume {outcome.folder}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_settings_are_fields_axes_or_factors() -> None:
    changed = change_study(load_study("grid"), {"dataset": "derma", "lr": [1e-3, 1e-4], "compare": "lr"})
    assert changed.grid["dataset"] == ["derma"]
    assert changed.compared == ("lr",)
    assert list(change_study(load_study("model_size"), {"model_size": ["ViT-S"]}).grid["model_size"]) == ["ViT-S"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean epochs"),
        ({"executor": "remote"}, "executor: Input should be 'ray' or 'local', not 'remote'"),
        ({"micro_batch": 0}, "micro_batch=0 must be auto or at least 1"),
        ({"stack": 1}, "stack=1 must be auto, off or at least 2"),
        ({"compare": "lrs"}, "compare: unknown field 'lrs'"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        raypatch.run("demo", **settings)


def test_a_study_in_python_is_checked_as_a_file_is() -> None:
    with pytest.raises(ValueError, match="the study: fixd: unknown field; did you mean fixed"):
        raypatch.run({"name": "x", "fixd": {}})
    with pytest.raises(ValueError, match="unknown option 'gpu'; did you mean gpus"):
        raypatch.resume("runs/x", gpu=1)
