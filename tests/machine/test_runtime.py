"""Devices, precision and random numbers."""

import sys

import pytest
import torch

from raypatch.machine.runtime import (
    generator,
    has_bfloat16,
    peak_memory,
    provenance,
    reset_peak_memory,
    resolve_device,
    resolve_precision,
)


def test_auto_is_what_the_machine_has() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x", "mps", ""])
def test_absent_devices_are_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(ValueError, match="use"):
        resolve_device(name)


def test_asked_precision_wins_and_auto_follows_the_hardware() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == "float32"
    assert resolve_precision("bfloat16", cpu) == "bfloat16"
    assert resolve_precision("auto", cpu) == ("bfloat16" if has_bfloat16(cpu) else "float32")


def test_generators_depend_on_seed_epoch_and_purpose_only() -> None:
    def draw(seed: int, epoch: int, purpose: str) -> float:
        return float(torch.rand((), generator=generator(seed, epoch, purpose)))  # type: ignore[arg-type]

    base = draw(0, 0, "order")
    torch.manual_seed(99)
    assert draw(0, 0, "order") == base
    assert len({base, draw(1, 0, "order"), draw(0, 1, "order"), draw(0, 0, "augmentation")}) == 4


def test_provenance_names_versions_and_hardware() -> None:
    found = provenance()
    assert {"raypatch", "python", "torch", "timm", "numpy", "cpu"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can set the peak of a process back")
def test_peak_memory_counts_from_its_reset() -> None:
    cpu = torch.device("cpu")
    large = torch.ones(2**26)  # 256 MiB
    before = peak_memory(cpu)
    del large
    reset_peak_memory(cpu)
    assert peak_memory(cpu) < before - 2**27
