"""The notebook of examples/ runs from top to bottom, and an interrupt of the kernel stops a sweep safely."""

import warnings
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "study.ipynb"
SECONDS = 280

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2 * SECONDS),
    # Jupyter's own packages warn of each other.
    pytest.mark.filterwarnings("ignore"),
]


def _execute(notebook, folder: Path):
    nbclient = pytest.importorskip("nbclient")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _text(cell) -> str:
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        parts.append(output.get("text", "") + data.get("text/plain", "") + data.get("text/markdown", ""))
    return "\n".join(parts)


def test_the_notebook_runs_and_shows_progress_scores_and_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cells = _execute(nbformat.read(EXAMPLE, 4), tmp_path)
    run = _text(cells[1])
    assert "4/4 done" in run
    assert "4 trials done, 0 failed, 0 left" in run
    assert any("text/html" in output.get("data", {}) for output in cells[1].outputs)
    assert "test_balanced_accuracy" in _text(cells[2])
    assert "phantom2d" in _text(cells[3])
    assert (tmp_path / "runs" / "notebook" / "report" / "report.html").is_file()


def test_an_interrupt_of_the_kernel_stops_with_whole_files_and_the_kernel_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = """
import os, pathlib, signal, threading, time, raypatch
def interrupt():
    while not list(pathlib.Path("runs").glob("*/trials/*/epochs.jsonl")):
        time.sleep(.05)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
how = {"executor": "local", "device": "cpu", "cpus_per_trial": 1}
outcome = raypatch.run("demo", dataset="phantom2d", patch_size=14, epochs=500, **how)
"""
    after = "print('still here', outcome.stopped, outcome.left > 0, outcome.resume_command)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(run), nbformat.v4.new_code_cell(after)])
    cells = _execute(notebook, tmp_path)
    assert "still here SIGINT True raypatch resume" in _text(cells[1])
    assert "to continue: raypatch resume" in _text(cells[0])
