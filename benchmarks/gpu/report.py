"""One JSON line for each check, on the screen and in a file, which is whole as far as it goes when it is cut off."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch


class Report:
    """Where checks say what they found.

    device: that is checked. tiny: whether sizes are so small that a CPU passes in a minute. budget: seconds after which
    no further part begins.
    """

    def __init__(self, out: Path, device: torch.device, *, tiny: bool, budget: float) -> None:
        self.device, self.tiny, self.budget = device, tiny, budget
        self.started = time.perf_counter()
        self.failures = 0
        out.parent.mkdir(parents=True, exist_ok=True)
        self._file = out.open("w", encoding="utf-8")

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def line(self, part: str, ok: bool | None, **found: Any) -> None:
        """Say what a part found. ok: None where there is nothing to pass."""
        self.failures += ok is False
        text = json.dumps({"part": part, "ok": ok, **_plain(found), "at_s": round(self.seconds, 1)})
        print(text, flush=True)
        self._file.write(text + "\n")
        self._file.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, str | int | bool | None) else str(value)
