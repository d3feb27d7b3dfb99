"""last.ckpt and best.safetensors: tensors with a checksum and the progress they belong to;
nothing is pickled.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from raypatch.models.attention import has_plain_attention, use_plain_attention
from raypatch.storage.files import write_atomically

Tensors = dict[str, torch.Tensor]

PLAIN_ATTENTION = "attention.plain"
"""What says in a checkpoint that attention is computed by plain products."""


@dataclass(frozen=True)
class Progress:
    """Where a trial stands: epochs completed, the best of them (from 1)
    and that one's selection score.

    stalled: evaluations since the score rose, or since the schedule plateau lowered the learning rate.
    reductions: how often it did.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_figure: float | None = None
    stalled: int = 0
    reductions: int = 0


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], progress: Progress) -> None:
    """Replace `path` by the tensors and the progress in one step."""
    # safetensors takes contiguous tensors alone.
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(vars(progress)), "crc32": str(_checksum(on_cpu))}
    write_atomically(path, save(on_cpu, metadata))


def load_tensors(path: Path) -> tuple[Tensors, Progress] | None:
    """Read what save_tensors wrote; None when it is missing, truncated or altered."""
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            progress = Progress(**json.loads(metadata["progress"]))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            # safetensors itself notices a file that is cut off, but no bit that has changed.
            intact = int(metadata["crc32"]) == _checksum(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return (tensors, progress) if intact else None


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Model and optimizer as one flat dict of tensors, `model.*` and `optimizer.<index>.<name>`.

    PLAIN_ATTENTION is there where attention is computed so.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, tensor in state.items():
            tensors[f"optimizer.{index}.{name}"] = tensor
    if has_plain_attention(model):
        tensors[PLAIN_ATTENTION] = torch.tensor(True)
    return tensors


def restore_training_state(
    tensors: Mapping[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Bring model and optimizer to the state that training_state gave."""
    # Not measured anew: another way would change bits.
    use_plain_attention(model, PLAIN_ATTENTION in tensors)
    model.load_state_dict(weights_in(tensors, "model"))
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    # The groups hold the learning rate and the like, which follow from the config: not stored.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def weights_in(tensors: Mapping[str, torch.Tensor], part: str) -> Tensors:
    """Return one part of a checkpoint, such as `model`, under the model's own names; empty without it."""
    weights = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{part}."):
            weights[name.removeprefix(f"{part}.")] = tensor
    return weights


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    checksum = 0
    # By name: the file gives them back in an order of its own.
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum
