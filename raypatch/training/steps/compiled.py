"""The forward and backward pass compiled by torch, for trainings that are long enough to pay for it."""

import hashlib
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable

import torch
from torch import nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.environment import cache_folder, is_writable
from raypatch.machine.runtime import Precision, cpu_flags
from raypatch.methods import find_method

logger = logging.getLogger(__name__)

LEAST_STEPS = 30_000
"""Steps of a training from which on `auto` compiles. On two CPU cores ViT-S needed up to 50 s to start, and gained 2 to
8 ms a step of 8 images (docs/LOG.md): here it has paid."""


def is_compiled(
    config: TrialConfig, options: RunOptions, device: torch.device, precision: Precision, steps: int
) -> bool:
    """Whether the training pass is compiled, for a training of so many steps.

    `auto` does so on a CPU in bfloat16 alone: float32 results are the same to the bit on all machines of a kind, and on
    a GPU nothing is measured yet. It follows from the trial and the machine, so that a resumed one goes on alike.
    """
    if options.compile == "off" or not find_method(config.method).trains_backbone:
        return False
    if options.compile == "on":
        return True
    pays = device.type == "cpu" and precision == "bfloat16" and steps >= LEAST_STEPS
    return pays and find_compiler() is not None


def find_compiler() -> str | None:
    """The C++ compiler that torch calls for a CPU's code, None where there is none."""
    return shutil.which(compiler_name())


def compiler_name() -> str:
    """What torch calls as its C++ compiler."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    program, *_ = os.environ.get("CXX", "").split() or [usual]
    return program


class CompiledModel:
    """A model whose forward and backward pass torch compiles at its first call; the weights are the model's own.

    A call with another shape would compile anew, so it is for full passes alone. What cannot be compiled runs as it
    is.
    """

    def __init__(self, model: nn.Module) -> None:
        _keep_apart()
        # Torch keeps few variants of a class of models in a process: what an earlier trial compiled makes room.
        torch.compiler.reset()
        self._model = model
        options: dict[str, str | int | bool | Callable[..., object]] = {
            # Not in further processes: a sweep's workers share the cores already.
            "compile_threads": 1,
            # No pickled graph is read or written, and no header that lies in /tmp wherever the other code does.
            "fx_graph_cache": False,
            "cpp_cache_precompile_headers": False,
            # Dropout draws what it draws in a model that is not compiled.
            "fallback_random": True,
        }
        self._compiled = torch.compile(model, dynamic=False, options=options)
        self._is_new = True

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """The model's outputs."""
        try:
            outputs: torch.Tensor = self._compiled(inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not self._is_new:
                raise
            reason = str(error).strip().partition("\n")[0]
            logger.warning(
                "the training pass was not compiled and runs as it is (--compile off is the same): %s", reason
            )
            logger.debug("what torch says of it:", exc_info=True)
            self._compiled = self._model
            outputs = self._model(inputs)
        else:
            if self._is_new:
                logger.info("the training pass is compiled")
        self._is_new = False
        return outputs


def _keep_apart() -> None:
    """Settings of the process: where compiled code lies, and what torch does at the first call."""
    # Private to torch, and so asked for here alone.
    import torch._functorch.config
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Torch's own choice, which it writes down when it is imported, is a name in /tmp that others can guess and fill.
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir()):
        # Machines that share a home folder may not run each other's code.
        said = " ".join(sorted(cpu_flags())) or platform.machine()
        own = cache_folder() / "compiled" / hashlib.sha256(said.encode()).hexdigest()[:12]
        usable = own.is_absolute() and is_writable(own)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(own) if usable else tempfile.mkdtemp()
    torch._functorch.config.enable_autograd_cache = False
    # The backward pass too, where an error still costs nothing.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    # It warns of a CUDA toolkit beside which there is no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
