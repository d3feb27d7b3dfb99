"""The command line as a user meets it: exit codes, messages with the way out, and nothing started by a mistake."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from raypatch.api import tell
from raypatch.cli.commands.sweeps import finish
from raypatch.results import SCHEMA_VERSION
from raypatch.sweep.run import Outcome

from commands import Command
from tiny import make_images

TINY = ("--name", "demo", "--model", "test_vit", "--weights", "random", "--patch-size", "4", "--seed", "0")
TINY += ("--set", "epochs=2")


def _images(tmp_path: Path, **changes: object) -> str:
    """An own .npz with some of its arrays changed; None removes one."""
    path = make_images(tmp_path / "own.npz")
    with np.load(path) as stored:
        arrays = dict(stored)
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = np.asarray(value)
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "dermo"], "unknown dataset 'dermo': did you mean dermamnist"),
        (["--dataset", "phantom2d", "--model", "vit_smal"], "unknown model 'vit_smal': did you mean vit_small"),
        (
            ["--dataset", "phantom2d", "--model", "resnet18"],
            "model resnet18 cannot take any patch size: that needs a plain Vision Transformer",
        ),
        (["--set", "epoch=3"], "unknown field 'epoch'; did you mean epochs"),
        (["--set", "zzz=3"], "unknown field 'zzz'; there are "),
        (["--seed", "4-0"], "--seed '4-0' runs backwards; write it as 0-4"),
        (["--compare", "lrs"], "compare: unknown field 'lrs'; did you mean lr"),
        (["--compare", "seed"], "compare: seed is what the comparison is repeated over"),
        (["--compare", "lr"], "compare: lr is no axis of the grid; list its levels under grid"),
        (["--set", "lr=1e-4", "--compare", "lr"], "compare: lr has one level, 0.0001; give two"),
        (["--patch-size", "14,14", "--compare", "patch_size"], "compare: patch_size has one level, 14"),
        (["--set", "epochs"], "must be field=value"),
        (["--set", "lr=-1"], "lr: Input should be greater than 0"),
        (["--patch-size", "5"], "patch_size=5 must divide image_size=28; use one of 1, 2, 4, 7, 14, 28"),
        (["--dataset", "phantom2d", "--set", "inflation=centre"], "inflation=centre is for volumes"),
        (["--name", "../up"], "must be letters, digits"),
        (["--dataset", "absent.npz"], "cannot read"),
        (["--weights", "absent.safetensors"], "cannot read"),
        (["--weights", "imagenet"], "must be timm, random or the path"),
        (["--device", "cuda:9", "--dataset", "phantom2d"], "is missing: this machine has"),
        (["--time-limit", "soon"], "must be a positive time"),
        (["--micro-batch", "0"], "must be auto or a number"),
        (["--stack", "1"], "must be auto, off or a number of at least 2"),
    ],
)
def test_wrong_input_is_explained_and_nothing_starts(
    raypatch: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    code, out, err = raypatch("run", "demo", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_unknown_space_names_the_near_ones(raypatch: Command) -> None:
    code, _, err = raypatch("run", "gird")
    assert code == 2
    assert "unknown search space 'gird': use grid" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_images": None}, "val_images"),
        ({"test_labels": np.array([{}] * 12, dtype=object)}, "test_labels"),
        ({"train_images": np.full((24, 8, 8), np.nan)}, "train_images"),
        ({"train_images": np.zeros((24, 8, 8), np.float32)}, "uint8"),
        ({"val_labels": np.full((12, 1), 7)}, "out of range"),
        ({"train_labels": np.full((24, 1), -1)}, "train_labels"),
        ({"val_images": np.zeros((0, 8, 8), np.uint8), "val_labels": np.zeros((0, 1), np.uint8)}, "val_images"),
        ({"train_images": np.zeros((24, 8, 9), np.uint8)}, "train_images"),
    ],
)
def test_wrong_own_data_is_explained(
    raypatch: Command, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    code, out, err = raypatch("run", "demo", "--dataset", _images(tmp_path, **changes), *TINY)
    assert (code, out) == (2, "")
    assert "own.npz" in err
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_truncated_data_is_explained(raypatch: Command, tmp_path: Path) -> None:
    path = make_images(tmp_path / "own.npz")
    path.write_bytes(path.read_bytes()[:-200])
    code, _, err = raypatch("run", "demo", "--dataset", str(path), *TINY)
    assert code == 2
    assert "own.npz" in err


def test_missing_official_data_without_a_network_says_what_to_put_where(
    raypatch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medmnist

    # A port of this machine where nobody listens stands for an unreachable network.
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "url", "http://127.0.0.1:9/breastmnist.npz")
    code, _, err = raypatch("run", "grid", "--dataset", "breast", "--weights", "random")
    assert code == 2
    assert f"put breastmnist.npz (MD5 {medmnist.INFO['breastmnist']['MD5']}) into {tmp_path / 'data'}" in err
    assert not (tmp_path / "runs").exists()


def test_timm_weights_without_a_network_name_the_way_out(
    raypatch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code, _, err = raypatch("run", "demo", "--weights", "timm", "--dataset", "phantom2d")
    assert code == 2
    assert "--weights" in err
    assert "Traceback" not in err


def test_weights_of_another_architecture_are_refused(raypatch: Command, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit2").state_dict(), path)
    data = str(make_images(tmp_path / "own.npz"))
    words = ["run", "demo", "--dataset", data, *TINY, "--weights", str(path)]
    code, _, err = raypatch(*words)
    assert code == 2
    assert "other.safetensors" in err
    assert "test_vit" in err


def test_unwritable_run_folder_is_explained(raypatch: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    code, _, err = raypatch("run", "demo", "--dataset", str(make_images(tmp_path / "own.npz")), *TINY)
    assert code == 2
    assert "cannot write to the run folder" in err
    assert "--runs-dir" in err


def test_folder_of_a_newer_schema_is_left_alone(raypatch: Command, tmp_path: Path) -> None:
    record = tmp_path / "runs" / "demo" / "sweep.json"
    record.parent.mkdir(parents=True)
    content = f'{{"schema_version": {SCHEMA_VERSION + 1}}}'
    record.write_text(content)
    words = ["--dataset", str(make_images(tmp_path / "own.npz")), *TINY, "--executor", "local"]
    for command in (["run", "demo", *words], ["resume", "runs/demo"], ["status", "runs/demo"]):
        code, _, err = raypatch(*command)
        assert code == 2
        assert "install a newer raypatch" in err
    assert record.read_text() == content


def test_folder_in_use_says_by_whom(raypatch: Command, tmp_path: Path) -> None:
    from raypatch.storage.files import hold_lock

    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    with hold_lock(folder / ".lock"):
        data = str(make_images(tmp_path / "own.npz"))
        code, _, err = raypatch("run", "demo", "--dataset", data, *TINY, "--executor", "local")
    assert code == 2
    assert "is in use by process" in err


@pytest.mark.real_data
def test_altered_official_file_is_refused_with_the_way_to_use_it_anyway(
    raypatch: Command, medmnist_root: Path, tmp_path: Path
) -> None:
    altered = medmnist_root.parent / "altered"
    if not (altered / "pneumoniamnist.npz").is_file():
        pytest.skip("no altered file beside the real data")
    words = ["run", "grid", "--dataset", "pneumonia", "--weights", "random", "--data-dir", str(altered)]
    code, _, err = raypatch(*words)
    assert code == 2
    assert "MD5" in err
    assert "--dataset " in err
    assert not (tmp_path / "runs").exists()


def test_from_own_file_to_the_table(raypatch: Command, tmp_path: Path) -> None:
    data = str(make_images(tmp_path / "own.npz", count=48))
    words = ["--name", "demo", "--model", "test_vit", "--weights", "random", "--seed", "0,1", "--set", "epochs=2"]
    sizes = ["--patch-size", "8,4,2", "--executor", "local"]
    code, out, _ = raypatch("run", "demo", "--dataset", data, *words, *sizes)
    assert code == 0
    assert "6 trials done, 0 failed, 0 left" in out
    code, out, _ = raypatch("report", "runs/demo", "--format", "md")
    assert code == 0
    assert "| own" in out
    assert "2+4+8" in out
    assert (tmp_path / "runs" / "demo" / "report" / "report.md").is_file()
    code, out, _ = raypatch("status", "runs/demo")
    assert code == 0
    assert "6/6 done" in out
    for words in (["--level", "8,4"], ["--patch-size", "8,4"]):
        code, out, _ = raypatch("predict", "runs/demo", "--input", data, *words)
        assert code == 0
        assert "12 images predicted by own-p8-" in out
    code, _, err = raypatch("predict", "runs/demo", "--input", data, "--level", "5")
    assert code == 2
    assert "'5' is no patch size of this study; it has 8, 4, 2" in err
    code, _, err = raypatch("report", "runs/demo", "--compare", "lrs")
    assert code == 2
    assert "lrs" in err


def test_failed_trials_give_exit_code_1(raypatch: Command, tmp_path: Path) -> None:
    data = str(make_images(tmp_path / "own.npz"))
    words = [*TINY, "--set", "lr=1e30", "--set", "optimizer=sgd", "--set", "warmup_epochs=0", "--executor", "local"]
    code, out, err = raypatch("run", "demo", "--dataset", data, *words)
    assert code == 1
    assert "1 failed" in out
    assert "training diverged" in err
    assert "--retry-failed" in err


def test_interrupted_gives_130_and_the_command_that_continues(raypatch: Command, tmp_path: Path) -> None:
    data = str(make_images(tmp_path / "own.npz"))
    words = [*TINY, "--set", "epochs=9999", "--executor", "local", "--time-limit", "2s"]
    code, _, err = raypatch("run", "demo", "--dataset", data, *words)
    assert code == 130
    assert f"to continue: raypatch resume {tmp_path / 'runs' / 'demo'}" in err


def test_spaces_models_and_data_are_listed(raypatch: Command) -> None:
    listed = raypatch("spaces")[1]
    assert "grid" in listed
    assert "Which training method?" in listed
    assert "Which learning rate for each patch size?" in listed
    assert raypatch("spaces", "grid")[1].startswith("# ")
    listed = raypatch("data", "list")[1]
    assert all(name in listed for name in ("dermamnist_224", "organmnist3d_64", "phantom3d"))
    out = raypatch("model", "test_vit", "--patch-size", "14,7", "--count")[1]
    assert len(out.splitlines()) == 3


def test_own_file_is_verified_by_its_structure(raypatch: Command, tmp_path: Path) -> None:
    code, out, _ = raypatch("data", "verify", str(make_images(tmp_path / "own.npz")))
    assert code == 0
    assert "binary, 2 classes" in out
    assert raypatch("data", "verify", "breast")[0] == 2


def _children_seconds() -> float:
    """Processor seconds of ended child processes: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "pandas", "numpy", "pydantic", "timm", "optuna", "matplotlib")
    code = f"""
import sys
from raypatch.cli import main as cli
sys.argv = ["raypatch", "--help"]
try:
    cli.main()
except SystemExit:
    pass
print([name for name in {heavy} if name in sys.modules])
"""
    seconds = []
    for _ in range(5):
        began = _children_seconds()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        seconds.append(_children_seconds() - began)
        assert done.stdout.splitlines()[-1] == "[]"
        assert "Usage" in done.stdout
    assert min(seconds) < 0.3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "grid", "--set", "lr=1e-4]"], "--set 'lr=1e-4]' cannot be read"),
        (["run", "grid", "--set", "schedule=[step"], "cannot be read"),
        (["predict", ".", "--input", "own.npz", "--out", "none/p.csv"], "there must be a folder none"),
        (["predict", ".", "--input", "own.npz", "--patch-size", "4,x"], "must be numbers of pixels"),
        (["predict", ".", "--input", "own.npz", "--level", "4", "--patch-size", "4"], "say the same thing"),
        (["run", "lesions.npz"], "raypatch run grid --dataset lesions.npz"),
        (["run", "."], "raypatch resume ."),
        (["run", "grid", "--lr", "1e-4"], "lr is a field of a trial: --set lr=1e-4"),
        (["plan", "grid", "--batch-size=16"], "batch_size is a field of a trial: --set batch_size=16"),
        (["run", "grid", "--colour", "red"], "No such option: --colour"),
        (["tune", "--metric", "test_auc"], "must be val_loss or val_ and a metric"),
        (
            ["tune", "--dataset", "derma", "--patch-size", "4", "--together"],
            "--together needs two levels of patch_size",
        ),
    ],
)
def test_what_cannot_be_read_or_written_is_explained(raypatch: Command, words: list[str], message: str) -> None:
    code, _, errors = raypatch(*words)
    assert code == 2
    assert message in errors


def test_a_space_of_ones_own_is_shown_whole(raypatch: Command, tmp_path: Path) -> None:
    text = "name: mine\nfixed: {dataset: derma, patch_size: 4}\n"
    (tmp_path / "my.yaml").write_text(text)
    assert raypatch("spaces", "my.yaml")[:2] == (0, text)


def test_an_interrupted_retry_says_that_it_was_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(tmp_path, 1, 2, {}, "Ctrl-C", "raypatch resume runs/a --retry-failed")
    tell(outcome)
    with pytest.raises(typer.Exit) as ended:
        finish(outcome)
    assert ended.value.exit_code == 130
    assert "to continue: raypatch resume runs/a --retry-failed" in capsys.readouterr().err


def test_a_card_by_number_is_not_for_ray(raypatch: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    code, _, errors = raypatch("run", "demo", *TINY, "--device", "cuda:1")
    assert code == 2
    assert "set CUDA_VISIBLE_DEVICES=1" in errors
    assert not (tmp_path / "runs").exists()
