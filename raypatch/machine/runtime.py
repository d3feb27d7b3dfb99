"""Where a trial runs: device, precision, random numbers, and the record of what it ran on."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

import raypatch
from raypatch.machine.attention_kernels import attention_kernels

Precision = Literal["bfloat16", "float32"]
Purpose = Literal["head", "order", "augmentation", "dropout", "views", "drop path"]


def resolve_device(name: str) -> torch.device:
    """Return the device called `name` (auto, cpu, cuda, cuda:N).

    Raises ValueError where it does not exist.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"device {name!r} is missing: this machine has {count} CUDA device(s); use --device auto or cpu"
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware
    (CUDA from sm_80 on, AVX512-BF16, AMX).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision that `asked` (auto, bfloat16, float32) means on this device."""
    if asked == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    return "bfloat16" if asked == "bfloat16" else "float32"


def forbid_tf32() -> None:
    """Let float32 be float32 on a CUDA device: cuDNN rounds the factors of convolutions to
    10 bits unless told not to. The setting is the process's; casts to bfloat16 are untouched.
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # made at import


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Run torch's products on so many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generator(seed: int, epoch: int, purpose: Purpose) -> torch.Generator:
    """A CPU generator fixed by (seed, epoch, purpose):
    no draw depends on what ran before, so resuming is exact.
    """
    # SeedSequence mixes well: neighbouring seeds and epochs give draws that have nothing in common.
    words = np.random.SeedSequence([seed, epoch, *purpose.encode()]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def seed_dropout(seed: int, epoch: int, device: torch.device) -> None:
    """Fix what layers draw while they train, such as dropout: they take torch's own random numbers."""
    start = generator(seed, epoch, "dropout").initial_seed()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(start)
    else:
        torch.default_generator.manual_seed(start)


def reset_peak_memory(device: torch.device) -> None:
    """Let peak_memory count from now: a worker runs many trials.

    Of a CPU's process only Linux can.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        # 5 resets the peak of the resident memory (man 5 proc).
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: the device allocator's peak since the last reset;
    on a CPU the process's peak resident memory.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    # Without /proc, in bytes on a Mac and in kB elsewhere; it cannot be reset there.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def total_memory(device: torch.device) -> int:
    """Bytes of memory that a CUDA device has in all."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def provenance() -> dict[str, str]:
    """Versions, hardware and commit under which a trial ran."""
    found = {
        "raypatch": raypatch.__version__,
        "python": platform.python_version(),
        "host": platform.node(),
    }
    for package in ("torch", "timm", "torchmetrics", "numpy"):
        found[package] = importlib.metadata.version(package)
    found["cpu"] = f"{_cpu_name()} ({os.cpu_count()} cores)"
    found["threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())
        found["driver"] = _driver_version()
        found["float32 products"] = str(torch.backends.cuda.matmul.fp32_precision)
        found["float32 convolutions"] = str(torch.backends.cudnn.conv.fp32_precision)  # type: ignore[attr-defined]  # made at import
        found["attention"] = " ".join(attention_kernels())
    commit = _git_commit()
    if commit:
        found["commit"] = commit
    return found


def _driver_version() -> str:
    """Version of NVIDIA's kernel module; empty where it does not tell."""
    module = Path("/sys/module/nvidia/version")
    return module.read_text().strip() if module.exists() else ""


@functools.cache
def _cpu_info() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return {}
    # One paragraph per core, and all alike: the first will do.
    first_core, _, _ = info.read_text("utf-8").partition("\n\n")
    facts = {}
    for line in first_core.splitlines():
        key, _, value = line.partition(":")
        facts[key.strip()] = value.strip()
    return facts


def cpu_flags() -> set[str]:
    """Instructions that this processor has, by Linux's names; empty elsewhere."""
    return set(_cpu_info().get("flags", "").split())


def _cpu_name() -> str:
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


@functools.cache
def _git_commit() -> str | None:
    """The commit of a source checkout, `+` where it has uncommitted changes;
    None for an installed package.
    """
    root = Path(raypatch.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    describe = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty=+",
        "--exclude=*",
    ]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
