"""FlashAttention 3 is used where the card and the package are there, and never breaks a trial."""

import importlib.util

import pytest
import torch
from torch.nn import attention

import raypatch.machine.attention_kernels
from raypatch.machine.attention_kernels import attention_kernels, use_flash_attention_3

CARD = torch.device("cuda", 0)


class _Torch:
    """What torch is asked, on a machine with this card and these packages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, capability: tuple[int, int], installed: bool) -> None:
        self.current: str | None = None
        self.errors: dict[str, Exception] = {}
        self.asked: list[str] = []
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
        monkeypatch.setattr(attention, "current_flash_attention_impl", lambda: self.current)
        monkeypatch.setattr(attention, "activate_flash_attention_impl", self._activate)
        monkeypatch.setattr(attention, "restore_flash_attention_impl", lambda: self._set(None))
        monkeypatch.setattr(raypatch.machine.attention_kernels, "_try_flash", self._try)
        use_flash_attention_3.cache_clear()

    def _set(self, name: str | None) -> None:
        self.current = name

    def _try(self, device: torch.device) -> None:
        if "trying" in self.errors:
            raise self.errors["trying"]

    def _activate(self, name: str) -> None:
        self.asked.append(name)
        if "activating" in self.errors:
            raise self.errors["activating"]
        self.current = name


def test_a_hopper_card_with_the_package_uses_it_and_results_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Torch(monkeypatch, capability=(9, 0), installed=True)
    assert "flash 3" not in attention_kernels()
    use_flash_attention_3(CARD)
    use_flash_attention_3(CARD)
    assert machine.asked == ["FA3"]
    assert "flash 3" in attention_kernels()


@pytest.mark.parametrize(("capability", "installed"), [((8, 0), True), ((10, 0), True), ((9, 0), False)])
def test_others_keep_what_torch_brings(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: bool
) -> None:
    machine = _Torch(monkeypatch, capability=capability, installed=installed)
    use_flash_attention_3(CARD)
    assert machine.asked == []


@pytest.mark.parametrize(
    ("at", "error"),
    [
        # A package that was built for another torch; kernels that are for inference in 8 bits alone.
        ("activating", ImportError("undefined symbol")),
        ("trying", RuntimeError("query dtype must be float8")),
    ],
)
def test_what_cannot_be_used_is_taken_back_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: str, error: Exception
) -> None:
    machine = _Torch(monkeypatch, capability=(9, 0), installed=True)
    machine.errors[at] = error
    use_flash_attention_3(CARD)
    use_flash_attention_3(CARD)
    assert machine.current is None
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"FlashAttention 3 is installed and cannot be used: {error}"]


def test_an_older_torch_has_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(attention, "current_flash_attention_impl")
    assert "flash 3" not in attention_kernels()
