"""A sweep on a real cluster: nodes die and come, no bit changes; a node that is not fit is named before the start."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from staged import staged_bits, staged_study

import raypatch
from raypatch.results import SweepPaths, read_epochs
from raypatch.study.resolve import resolve_trials

from nodes import Nodes, why_not
from processes import RAYPATCH, calm
from tiny import make_images, read_figures

EPOCHS = 600  # a trial must last longer than a new node's worker takes to start, or workers at hand get all
PATIENCE = 1500.0

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(4000)]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if reason := why_not():
        pytest.skip(reason)
    with Nodes() as started:
        yield started


@pytest.fixture
def space(tmp_path: Path) -> Path:
    data = make_images(tmp_path / "own.npz")
    path = tmp_path / "far.yaml"
    path.write_text(f"""
name: far
fixed: {{dataset: {data}, model: test_vit, weights: random, epochs: {EPOCHS}, batch_size: 12, lr: 1.0e-3}}
grid: {{patch_size: [8, 4, 2], seed: [0, 1]}}
""")
    return path


def _trained_on(paths: SweepPaths, node: str) -> dict[str, int]:
    """Trials that run on a node now, with the epochs that they have done."""
    found = {}
    for trial in paths.trial_folders():
        try:
            holder = trial.lock.read_text()
        except OSError:
            continue
        if holder.endswith(f"on {node}"):
            found[trial.folder.name] = len(read_epochs(trial.epochs))
    return found


def _sweep(nodes: Nodes, folder: Path, *words: str, environment: Mapping[str, str] = {}) -> "subprocess.Popen[bytes]":
    return nodes.start(
        [*RAYPATCH, *words], environment=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_a_node_dies_and_one_comes_and_no_bit_changes(nodes: Nodes, space: Path, tmp_path: Path) -> None:
    alone = [*RAYPATCH, "run", str(space), "--name", "alone", "--executor", "local", "--cpus-per-trial", "1"]
    nodes.add()
    doomed = nodes.add()
    driver = _sweep(nodes, tmp_path, "run", str(space), "--address", nodes.address, "--retries", "1")
    paths, deadline = SweepPaths(tmp_path / "runs" / "far"), time.monotonic() + PATIENCE
    while max((lost := _trained_on(paths, doomed)).values(), default=0) < 5:
        assert driver.poll() is None, driver.communicate()[0].decode()
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)
    nodes.kill(doomed)
    ((trial_id, epochs),) = lost.items()
    came = nodes.add()
    said = driver.communicate(timeout=PATIENCE)[0].decode()
    assert driver.returncode == 0, said
    assert "3 nodes of the cluster are ready" in said
    assert "6 trials done, 0 failed, 0 left" in said

    logs = {trial.folder.name: trial.log.read_text() for trial in paths.trial_folders()}
    resumed = [int(epoch) for epoch in re.findall(r"from epoch (\d+)", logs[trial_id])][1:]
    assert resumed, logs[trial_id]
    # From its checkpoint, which is of the first epoch: of short epochs one is written each minute.
    assert resumed[0] > 1
    where = {node: sum(f"on {node}," in log for log in logs.values()) for node in ("node1", "node2", doomed, came)}
    print(f"trials begun by node: {where}; {trial_id} lost after epoch {epochs}, went on from {resumed}")
    assert all(where.values())

    subprocess.run(alone, cwd=tmp_path, env=calm(), stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)
    assert read_figures(paths) == read_figures(SweepPaths(tmp_path / "runs" / "alone"))
    assert not [path for path in paths.folder.rglob("*") if path.name.startswith(".") or path.name == "last.ckpt"]
    assert nodes.started["node1"].poll() is None, "the cluster must live on"


def test_what_is_not_fit_is_named_before_the_start(nodes: Nodes, space: Path, tmp_path: Path) -> None:
    run = ("run", str(space), "--address", nodes.address, "--cpus-per-trial", "1")
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    shadow, empty = tmp_path / "shadow", tmp_path / "empty"
    (shadow / "raypatch").mkdir(parents=True)
    (empty / "raypatch").mkdir(parents=True)
    here = Path(raypatch.__file__).parent
    for path in here.rglob("*.py"):
        copy = shadow / "raypatch" / path.relative_to(here)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text().replace("0.1.0", "0.0.9"))
    (shadow / "raypatch" / "data" / "medmnist.json").write_bytes((here / "data" / "medmnist.json").read_bytes())
    (empty / "raypatch" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'raypatch'\")")

    def refused(*words: str, **environment: str) -> str:
        driver = _sweep(nodes, tmp_path, *words, environment=environment)
        said = driver.communicate(timeout=PATIENCE)[0].decode()
        print(said)
        assert driver.returncode == 2, said
        assert "Traceback" not in said
        assert not list(tmp_path.glob("runs/far/trials/*"))
        assert not list(tmp_path.rglob(".probe*"))
        return said

    for place in (str(wrong), str(tmp_path / "none")):
        said = refused(*run, RAY_AUTH_TOKEN_PATH=place)
        assert "RAY_AUTH_TOKEN_PATH to a file with the cluster's token" in said
    assert "RAY_AUTH_MODE=disabled sends none" in refused(*run, RAY_AUTH_MODE="disabled")
    nowhere = nodes.address.replace("6379", "6380")
    assert f"no Ray cluster answers at {nowhere}" in refused("run", str(space), "--address", nowhere)

    (tmp_path / "runs").mkdir(exist_ok=True)
    fit = nodes.add()
    blind = nodes.add(hidden=tmp_path / "runs")
    other = nodes.add(environment={"PYTHONPATH": str(shadow)})
    without = nodes.add(environment={"PYTHONPATH": str(empty)})
    said = refused(*run)
    lines = {name: [line for line in said.splitlines() if nodes.ip(name) in line] for name in nodes.started}
    assert not lines["node1"] + lines[fit]
    assert "does not see the run folder" in lines[blind][0]
    assert "raypatch 0.0.9 (here 0.1.0), code " in lines[other][0]
    assert "No module named 'raypatch'" in lines[without][0]


def test_a_child_on_another_node_reads_the_weights_of_its_stage(nodes: Nodes, tmp_path: Path) -> None:
    study = staged_study(make_images(tmp_path / "own.npz"), epochs=[300], seed=[0, 1, 2])
    space = tmp_path / "tiny.yaml"
    space.write_text(yaml.safe_dump(study.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    nodes.add()
    driver = _sweep(nodes, tmp_path, "run", str(space), "--address", nodes.address, "--cpus-per-trial", "1")
    said = driver.communicate(timeout=PATIENCE)[0].decode()
    assert driver.returncode == 0, said
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    by_node: dict[str, list[str]] = {}
    for config in resolve_trials(study).planned:
        log = paths.trial(config.trial_id()).log.read_text()
        for node in re.findall(r"process \d+ on (\w+),", log):
            kind = "stage" if config.makes_weights else "child" if config.parent else "other"
            by_node.setdefault(node, []).append(kind)
    print(f"trials by node: {by_node}")
    (of_stage,) = [node for node, kinds in by_node.items() if "stage" in kinds]
    assert any("child" in kinds for node, kinds in by_node.items() if node != of_stage), by_node
    alone = [*RAYPATCH, "run", str(space), "--name", "alone", "--executor", "local", "--cpus-per-trial", "1"]
    subprocess.run(alone, cwd=tmp_path, env=calm(), stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)
    assert staged_bits(paths) == staged_bits(SweepPaths(tmp_path / "runs" / "alone"))
