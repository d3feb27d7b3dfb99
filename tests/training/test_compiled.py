"""A training pass that torch compiles: when it is, that it computes the same, and that it never costs a trial."""

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch._functorch.config
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

import raypatch
from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.environment import cache_folder
from raypatch.machine.runtime import Precision
from raypatch.results import TrialPaths, TrialResult
from raypatch.training.loop import Interrupted
from raypatch.training.steps.compiled import LEAST_STEPS, CompiledModel, find_compiler, is_compiled
from raypatch.trial import train_trial

from tiny import make_images, tiny_trial

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ONE_SHAPE = torch.ones(4, 3)


class _Calls(nn.Module):
    """A model that counts how often Python runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(inputs).relu()


@pytest.fixture(autouse=True)
def _settings_of_the_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bring back what compiling sets for good."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/nowhere")
    with torch._functorch.config.patch(enable_autograd_cache=True, force_non_lazy_backward_lowering=False):
        yield


@pytest.mark.parametrize(
    ("asked", "device", "precision", "steps", "expected"),
    [
        ("auto", CPU, "bfloat16", LEAST_STEPS, True),
        ("auto", CPU, "bfloat16", LEAST_STEPS - 1, False),
        ("auto", CPU, "float32", LEAST_STEPS, False),
        ("auto", CUDA, "bfloat16", LEAST_STEPS, False),
        ("on", CPU, "float32", 1, True),
        ("on", CUDA, "bfloat16", 1, True),
        ("off", CPU, "bfloat16", LEAST_STEPS, False),
    ],
)
def test_auto_compiles_where_it_was_measured_to_pay(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: torch.device,
    precision: Precision,
    steps: int,
    expected: bool,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    options = RunOptions.model_validate({"compile": asked})
    config = TrialConfig.model_validate({"dataset": "phantom2d", "model": "test_vit", "weights": "random"})
    assert is_compiled(config, options, device, precision, steps) == expected
    # A head on frozen features is too small to gain.
    probe = config.model_copy(update={"method": "linear_probe"})
    assert not is_compiled(probe, options, device, precision, steps)


def test_auto_does_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    config = TrialConfig.model_validate({"dataset": "phantom2d", "model": "test_vit", "weights": "random"})
    assert not is_compiled(config, RunOptions(), CPU, "bfloat16", LEAST_STEPS)


def test_the_compiler_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "own++"
    own.touch(0o755)
    monkeypatch.setenv("CXX", f"{own} -O2")
    assert find_compiler() == str(own)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_compiler() is None
    monkeypatch.setenv("CXX", " ")
    assert find_compiler() in (shutil.which("g++"), shutil.which("clang++"))


def test_on_without_a_compiler_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="there is no no-such-compiler here"):
        raypatch.run("demo", compile="on", device="cpu", executor="local")
    assert not list(tmp_path.glob("runs/*/trials"))


def test_outputs_and_gradients_are_the_models(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Traced and run without a C++ compiler, which takes a moment."""
    caplog.set_level("INFO", "raypatch")
    _trace_alone(monkeypatch)
    model = _Calls()
    plain = copy.deepcopy(model)
    compiled = CompiledModel(model)
    for step in range(3):
        inputs = step + ONE_SHAPE
        outputs, expected = compiled(inputs), plain(inputs)
        assert torch.equal(outputs, expected)
        gradients = torch.autograd.grad(outputs.sum(), list(model.parameters()))
        assert all(map(torch.equal, gradients, torch.autograd.grad(expected.sum(), list(plain.parameters()))))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("raypatch")]
    assert said == ["the training pass is compiled"]


def test_a_backward_pass_that_cannot_be_compiled_costs_nothing_either(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(graph: object, inputs: object) -> object:
        raise RuntimeError("no space left")

    backend = aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=refuse)
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **settings: compile_with(model, backend=backend))
    model = _Calls()
    CompiledModel(model)(ONE_SHAPE).sum().backward()
    assert "was not compiled and runs as it is" in caplog.text
    assert model.layer.weight.grad is not None


def test_code_is_kept_in_a_folder_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's choice is a known name in /tmp, where others could leave code to be run; graphs would be pickles."""
    for before in (None, default_cache_dir()):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        if before is not None:
            # Torch writes its choice down when timm is imported.
            monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", before)
        CompiledModel(_Calls())
        assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == cache_folder() / "compiled"
    assert not torch._functorch.config.enable_autograd_cache
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/chosen")
    CompiledModel(_Calls())
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/chosen"


def test_what_cannot_be_compiled_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _fail_at(monkeypatch, 1, RuntimeError("C++ compile error\nmany lines"))
    model = _Calls()
    compiled = CompiledModel(model)
    assert [compiled(ONE_SHAPE).shape for _ in range(2)] == [(4, 2)] * 2
    assert model.calls == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the training pass was not compiled and runs as it is (--compile off is the same): C++ compile error"
    ]


def test_errors_of_a_pass_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(monkeypatch, 2, RuntimeError("shapes"))
    compiled = CompiledModel(_Calls())
    compiled(ONE_SHAPE)
    with pytest.raises(RuntimeError, match="shapes"):
        compiled(ONE_SHAPE)
    # Out of memory: the step halves its passes, and compiles those.
    _fail_at(monkeypatch, 1, torch.OutOfMemoryError("full"))
    with pytest.raises(torch.OutOfMemoryError):
        CompiledModel(_Calls())(ONE_SHAPE)


def test_a_last_batch_of_another_size_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shapes = []

    def compile_nothing(model: nn.Module, **settings: object) -> object:
        def run(inputs: torch.Tensor) -> torch.Tensor:
            shapes.append(len(inputs))
            outputs: torch.Tensor = model(inputs)
            return outputs

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    # Batches of 8, 8, 8 and 3 images, in passes of 4.
    config, options = tiny_trial(make_images(tmp_path / "a.npz", count=27), epochs=1)
    _run(tmp_path / "trial", config, options.model_copy(update={"compile": "on", "micro_batch": 4}))
    assert shapes == [4] * 6


def test_without_a_home_code_lies_in_no_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    CompiledModel(_Calls())
    chosen = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert chosen.is_absolute()
    assert tmp_path not in chosen.parents
    # Others must not be able to write there.
    assert chosen.stat().st_mode & 0o077 == 0
    chosen.rmdir()


@pytest.mark.slow  # 60 s: three times a C++ compiler
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler, which .ci/run installs")
def test_a_compiled_trial_goes_on_after_a_stop_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    config, options = tiny_trial(make_images(tmp_path / "a.npz"), precision="bfloat16")
    eager = _run(tmp_path / "eager", config, options)
    headers = _headers()
    options = options.model_copy(update={"compile": "on"})
    straight = _run(tmp_path / "straight", config, options)
    assert list((tmp_path / "code").rglob("*.so"))
    assert _headers() == headers
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        _run(tmp_path / "stopped", config, options, should_stop=lambda: next(steps) > 4)
    continued = _run(tmp_path / "stopped", config, options)
    assert (continued.val, continued.test) == (straight.val, straight.test)
    assert (tmp_path / "stopped/predictions.npz").read_bytes() == (tmp_path / "straight/predictions.npz").read_bytes()
    assert straight.val is not None
    assert eager.val is not None
    assert straight.val["loss"] == pytest.approx(eager.val["loss"], rel=2e-2)


def _run(
    folder: Path, config: TrialConfig, options: RunOptions, should_stop: Callable[[], bool] = lambda: False
) -> TrialResult:
    folder.mkdir(exist_ok=True)
    return train_trial(config, TrialPaths(folder), options, should_stop=should_stop)


def _headers() -> set[Path]:
    """What torch would leave where others can write."""
    return set(Path(default_cache_dir()).rglob("*.gch"))


def _trace_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, **settings: compile_with(model, backend="aot_eager", dynamic=False)
    )


def _fail_at(monkeypatch: pytest.MonkeyPatch, number: int, error: Exception) -> None:
    """Let the compiled model raise at its call of this number."""

    def compile_badly(model: nn.Module, **settings: object) -> object:
        calls = iter(range(1, 100))

        def run(inputs: torch.Tensor) -> torch.Tensor:
            if next(calls) == number:
                raise error
            outputs: torch.Tensor = model(inputs)
            return outputs

        return run

    monkeypatch.setattr(torch, "compile", compile_badly)
