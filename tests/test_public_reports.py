"""What users of other tools reported, tried here: one behaviour a test, with where it was reported."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import typer
from PIL import Image
from safetensors.torch import save_file

import raypatch
from raypatch.cli.main import app
from raypatch.config import TrialConfig
from raypatch.data.inputs import read_inputs
from raypatch.data.layout.npz import DataError, inspect_npz
from raypatch.models.build import check_model
from raypatch.models.weights import read_weights_file
from raypatch.storage.own_files import move_own_files, own_file_id

ROOT = Path(__file__).resolve().parents[1]
SPLITS = (("train", 24), ("val", 12), ("test", 12))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 22883432\n"


def make_file(path: Path, **changes: np.ndarray | None) -> Path:
    """A small .npz of two classes, with some arrays changed; None takes one away."""
    path.parent.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray | None] = {}
    for split, count in SPLITS:
        labels = np.arange(count) % 2
        noise = random.integers(0, 100, (count, 16, 16))
        arrays[f"{split}_images"] = (noise + 100 * labels[:, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def read_pictures(folder: Path) -> np.ndarray:
    _, images = read_inputs(folder, "test", dimensions=2, channels=1, image_size=16, resize="bilinear")
    return images.numpy()


def test_hidden_files_of_a_mac_are_left_out(tmp_path):
    """OpenNeuroOrg/openneuro#2520."""
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    assert len(read_pictures(tmp_path)) == 1


def test_channels_first_is_no_volume(tmp_path):
    """danielvarga/keras-finetuning#10: the advice for volumes, followed, trains on nonsense."""
    images = {f"{split}_images": np.zeros((count, 3, 16, 16), np.uint8) for split, count in SPLITS}
    with pytest.raises(DataError, match="channels go last"):
        inspect_npz(make_file(tmp_path / "own.npz", **images))


def test_two_classes_of_one_name_are_refused_before_they_lose_the_report(tmp_path):
    """mlfoundations/open_clip#917, pytorch/vision#1734: arrays of U5 cut `benign_a` and `benign_b` alike."""
    names = np.array(["benign_a", "benign_b"]).astype("U6")
    with pytest.raises(DataError, match=r"has 'benign' 2 times.*an array of <U6 cuts longer ones off"):
        inspect_npz(make_file(tmp_path / "own.npz", class_names=names))


def test_one_hot_labels_are_not_taken_for_multi_label(tmp_path):
    """MedMNIST/MedMNIST#53: accuracy of predicting nothing was 75 %."""
    labels = {f"{split}_labels": np.eye(4, dtype=np.uint8)[np.arange(count) % 4] for split, count in SPLITS}
    with pytest.raises(DataError, match="one-hot"):
        inspect_npz(make_file(tmp_path / "own.npz", **labels))


@pytest.mark.parametrize("kind", ["16 bit png", "16 bit tiff", "float tiff"])
def test_deep_pictures_are_not_clipped_to_white(tmp_path, kind):
    """python-pillow/Pillow#3011, Deci-AI/super-gradients#1920."""
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = picture.astype(np.float32) / 255 if "float" in kind else picture.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / ("a.png" if "png" in kind else "a.tif"))
    assert np.array_equal(read_pictures(tmp_path)[0, 0], picture)


def test_one_scan_in_two_orientations_is_one_array(tmp_path):
    """MIC-DKFZ/nnUNet#1167."""
    import nibabel

    scan = np.random.default_rng(0).integers(0, 255, (8, 8, 8), dtype=np.uint8)
    found = []
    for name, values, affine in (("ras", scan, np.eye(4)), ("las", scan[::-1], np.diag([-1, 1, 1, 1]))):
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
        path = tmp_path / f"{name}.nii.gz"
        found.append(read_inputs(path, "test", dimensions=3, channels=1, image_size=8, resize="bilinear")[1])
    assert found[0].equal(found[1])


def test_a_volume_of_one_frame_is_a_volume_and_nan_is_called_nan(tmp_path):
    """NeuroVault/NeuroVault#486."""
    import nibabel

    values = np.random.default_rng(0).random((8, 8, 8, 1), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    options = {"dimensions": 3, "channels": 1, "image_size": 8, "resize": "bilinear"}
    assert read_inputs(tmp_path / "a.nii", "test", **options)[1].shape == (1, 1, 8, 8, 8)
    values[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(DataError, match="NaN"):
        read_inputs(tmp_path / "b.nii", "test", **options)


def test_new_images_need_no_labels(tmp_path):
    """mlcommons/GaNDLF#360."""
    path = tmp_path / "new.npz"
    images = np.random.default_rng(0).integers(0, 255, (5, 16, 16), dtype=np.uint8)
    np.savez(path, test_images=images)
    names, found = read_inputs(path, "test", dimensions=2, channels=1, image_size=16, resize="bilinear")
    assert names[0] == "test:0"
    assert np.array_equal(found[:, 0].numpy(), images)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    """microsoft/OmniParser#34."""
    path = tmp_path / "own.npz"
    path.write_bytes(POINTER)
    with pytest.raises(DataError, match="git-lfs pointer"):
        inspect_npz(path)


LOCK = """
import errno, fcntl, os, sys
from pathlib import Path
def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
from raypatch.storage.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    pass
with hold_lock(Path(sys.argv[1])):
    pass
"""


def test_a_file_system_without_locks_is_no_reason_to_fail_and_is_told_once(tmp_path):
    """tox-dev/filelock#67, DataBiosphere/toil#4846."""
    command = [sys.executable, "-c", LOCK, str(tmp_path / ".lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stderr.count("has no locks") == 1
    assert list(tmp_path.iterdir()) == []


def run_raypatch(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, in `folder`."""
    command = [sys.executable, "-c", "from raypatch.cli.main import main; main()", *words]
    usual = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "RAY_TMPDIR")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**usual, **environment}, timeout=250
    )


TINY = ["--patch-size", "8", "--model", "test_vit", "--weights", "random", "--set", "epochs=1", "--set", "batch_size=8"]
LOCAL = [*TINY, "--seed", "0", "--device", "cpu", "--executor", "local", "--name", "r"]


def test_notebook_matplotlibrc_home_and_temporary_folder_do_not_matter(tmp_path):
    """deeptools/deepTools#1416, rmaphoh/AutoMorph#12; a home and a TMPDIR that cannot be written to."""
    make_file(tmp_path / "own.npz")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.facecolor: red\nbackend: nonsense\n")
    hostile = {"MPLBACKEND": "module://matplotlib_inline.no_such_backend", "HOME": "/proc/none", "TMPDIR": "/proc/none"}
    done = run_raypatch(tmp_path, "run", "grid", "--dataset", "own.npz", *LOCAL, **hostile)
    assert done.returncode == 0, done.stderr
    done = run_raypatch(tmp_path, "report", "runs/r", **hostile)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_stops_no_sweep_and_brings_no_traceback(tmp_path):
    """Backblaze/B2_Command_Line_Tool#1071."""
    make_file(tmp_path / "own.npz")
    command = [sys.executable, "-c", "from raypatch.cli.main import main; main()"]
    words = ["run", "grid", "--dataset", "own.npz", *LOCAL]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen([*command, *words], **pipes) as sweep:
        sweep.stdout.close()
        error = sweep.stderr.read()
        assert sweep.wait(timeout=200) == 0
    assert "the sweep goes on" in error
    assert len(list(tmp_path.glob("runs/r/trials/*/result.json"))) == 1
    with subprocess.Popen([*command, "data", "list"], **pipes) as listing:
        listing.stdout.close()
        assert listing.stderr.read() == ""


HERE = {"model": "test_vit", "weights": "random", "patch_size": 8, "epochs": 1, "batch_size": 8, "seed": 0}
HOW = {"device": "cpu", "executor": "local"}


@pytest.mark.parametrize("study", ["grid", "learning_rate"])
def test_a_score_that_validation_leaves_undefined_is_refused_before_the_start(tmp_path, study):
    """optuna/optuna#5202, suinleelab/cxr_covid#1: all samples were pruned, and the best of none was offered."""
    labels = {f"{split}_labels": (np.arange(count) % 3)[:, None] for split, count in SPLITS}
    data = make_file(tmp_path / "own.npz", **labels | {"val_labels": np.arange(12)[:, None] % 2})
    fields = {**HERE, "dataset": str(data), "selection": "val_auc", "epochs": 3}
    with pytest.raises(ValueError, match="val_auc is undefined on own: its val has only class 0, 1"):
        raypatch.run(study, folder=tmp_path / "t", **fields, **HOW)
    assert not (tmp_path / "t").exists()


def test_a_moved_file_is_pointed_out_and_taken_by_resume(tmp_path):
    """The advice named an option that the command lacked."""
    data = make_file(tmp_path / "data" / "d.npz")
    run = tmp_path / "runs" / "r"
    raypatch.run("grid", folder=run, dataset=str(data), time_limit=0.001, **HERE, **HOW)
    moved = data.rename(data.with_name("e.npz"))
    with pytest.raises(ValueError, match=f"or its content now lies in {moved}: give --dataset {moved}"):
        raypatch.resume(run)
    other = make_file(tmp_path / "other.npz", class_names=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="none of the files of this run: file:d@"):
        raypatch.resume(run, moved=[other])
    assert raypatch.resume(run, moved=[moved]).left == 0


def test_a_folder_of_data_is_searched_for_a_moved_file(tmp_path):
    path = make_file(tmp_path / "d.npz")
    name = own_file_id(path)
    (tmp_path / "new").mkdir()
    moved = path.rename(tmp_path / "new" / "another_name.npz")
    assert move_own_files({name: path}, [], [tmp_path / "new"]) == {name: moved}
    assert move_own_files({name: path}, [], [tmp_path]) == {name: path}


def test_ray_gets_a_short_folder_where_a_job_s_own_is_long(tmp_path, monkeypatch):
    """verl-project/verl#1120: sockets have 107 bytes for their path."""
    from raypatch.sweep.services.ray_home import LONGEST_BASE, ray_base

    job = tmp_path / "slurm_jobdir_1355700" / "folder_of_a_member_of_the_lab"
    job.mkdir(parents=True)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for chosen in (str(job), "/proc/none"):
        monkeypatch.setenv("TMPDIR", chosen)
        base = ray_base()
        assert base is not None
        assert len(str(base)) <= LONGEST_BASE
        base.rmdir()


def test_workers_import_what_the_command_imports(tmp_path, monkeypatch):
    """ray-project/ray#17518: a clone of timm in the working folder was trained with, under the same trial id."""
    from raypatch.sweep.services.ray_home import as_workers_need_it

    work, empty = tmp_path / "work", tmp_path / "empty"
    (work / "timm").mkdir(parents=True)
    empty.mkdir()
    (work / "timm" / "__init__.py").write_text("")
    monkeypatch.chdir(work)
    with as_workers_need_it(empty):
        code = "import importlib.util; print(importlib.util.find_spec('timm').origin)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert Path.cwd() == empty
    assert found.strip() == importlib.util.find_spec("timm").origin
    assert Path.cwd() == work


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_that_are_a_pointer_of_git_lfs_are_called_one(tmp_path, name):
    """microsoft/OmniParser#34."""
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match="git-lfs pointer"):
        read_weights_file(tmp_path / name)


def test_weights_that_hold_nan_are_told_before_training_seems_to_diverge(tmp_path):
    state = {name: tensor.clone() for name, tensor in timm.create_model("test_vit").state_dict().items()}
    state["norm.weight"][0] = float("nan")
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    name = own_file_id(path)
    config = TrialConfig(dataset="phantom2d", patch_size=14, model="test_vit", weights=name)
    with pytest.raises(ValueError, match=r"holds NaN or infinity in norm\.weight"):
        check_model(config, dimensions=2, outputs=2, files={name: path})


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
ELSEWHERE = {"--head", "--num-cpus", "--num-gpus", "--abbrev", "--cpus", "--install-completion"}
"""Options of other programs."""
NAMED = re.compile(r"`raypatch [^`]*`|raypatch (run|tune|plan) ")


def _options() -> dict[str, set[str]]:
    """The options of each command."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        for part, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {part}".strip())
        found[name] = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}

    walk(typer.main.get_command(app), "")
    return found


def _texts(path: Path) -> Iterator[str]:
    """The strings of a module but its docstrings, with {} for what is put in."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inner.add(node.value)
        if isinstance(node, ast.JoinedStr):
            inner.update(node.values)
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
            yield node.value


ADVICE = []
for folder in ("raypatch", "analysis"):
    for module in sorted((ROOT / folder).rglob("*.py")):
        for text in _texts(module):
            if OPTION.search(text) and " " in text:
                ADVICE.append((module.relative_to(ROOT).as_posix(), text))


def test_every_option_that_a_message_names_exists():
    known = set().union(*_options().values()) | ELSEWHERE
    for module, text in ADVICE:
        assert set(OPTION.findall(text)) <= known, f"{module}: {text}"


def test_advice_while_trials_run_is_for_resume_too_or_names_its_command():
    """`resume` can raise whatever `run` can, and has fewer options."""
    options = _options()
    for module, text in ADVICE:
        if module.startswith(("raypatch/sweep/", "raypatch/storage/", "raypatch/machine/")) and not NAMED.search(text):
            lacking = set(OPTION.findall(text)) - options["resume"] - ELSEWHERE
            assert not lacking, f"{module} advises {lacking}, which `raypatch resume` lacks: {text}"
