"""Weights that a model starts from: those that come with it, or an own file,
checked against the model.
"""

import functools
import pickle
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from timm.models import clean_state_dict
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.families import Family
from raypatch.models.hub import WAY_OUT
from raypatch.storage.impostors import explain_impostor
from raypatch.storage.own_files import locate_own_file


def read_native_state(
    config: TrialConfig,
    family: Family,
    model: nn.Module,
    files: Mapping[str, Path],
    *,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Read the pretrained state that `config` names, without its classification head,
    and see that it fits `model`.

    device: `meta` reads the names and shapes of an own file alone. Raises ValueError when the state
    cannot be had or does not fit: no network, no such weights, an unreadable or changed file,
    another architecture.
    """
    head = family.head_name(model)
    if config.weights == "timm":
        return without_head(family.pretrained_state(config), head)
    path = _locate(config, files)
    state = without_wrapping(read_weights_file(path, device=device), model.state_dict())
    state = without_head(state, head)
    require_fit(state, family, model, config.model, path)
    return state


def ensure_weights(
    config: TrialConfig,
    family: Family,
    model: nn.Module,
    files: Mapping[str, Path],
) -> None:
    """Download hub weights that are not yet here; check an own file by its names and shapes.

    Raises ValueError.
    """
    if config.parent is not None:
        # They are not made yet; that the model can be built, its own check has seen.
        return
    if config.weights == "timm":
        family.fetch_weights(config)
    else:
        read_native_state(config, family, model, files, device="meta")
        path = locate_own_file(config.weights, files, option="--weights")
        _require_finite_once(path, path.stat().st_mtime_ns)


def _locate(config: TrialConfig, files: Mapping[str, Path]) -> Path:
    """Where the weights file of a trial lies. Raises ValueError."""
    if config.parent is None:
        return locate_own_file(config.weights, files, option="--weights")
    path = files.get(config.weights)
    if path is None or not path.is_file():
        raise ValueError(f"the weights of trial {config.parent} are not there: remove its folder and resume the run")
    return path


def without_head(state: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """Return a state without what belongs to the submodule `head`."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(head + ".")}


def read_weights_file(path: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from .pth as a whole,
    under `model` or under `state_dict`.

    device: `meta` reads names and shapes alone. Raises ValueError when the file cannot be read,
    holds other Python objects than tensors, or no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(clean_state_dict(_read_safetensors(path, device)))
        content = torch.load(path, map_location=device, weights_only=True)
    # The readers raise many kinds for a damaged file; all mean the same here.
    except Exception as error:
        impostor = explain_impostor(path)
        if impostor:
            raise ValueError(impostor) from error
        if isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{path} is no PyTorch file of tensors alone,"
                " and raypatch loads no other Python objects;"
                " save the model's state_dict() by itself, best as .safetensors"
            ) from error
        raise ValueError(f"cannot read the weights in {path}: {error}; {WAY_OUT}") from error
    # Trainers save more than weights: timm and DeiT put these under `model`, Lightning under the
    # other.
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not _is_state_dict(content):
        raise ValueError(f"{path} holds no state dict (names with tensors); save the model's state_dict() by itself")
    return dict(clean_state_dict(content))


def _is_state_dict(content: object) -> bool:
    if not isinstance(content, dict):
        return False
    return all(isinstance(value, Tensor) for value in content.values())


def without_wrapping(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Return the state under the names of the model itself, whatever it lay in when it was saved.

    torch.compile, parallel training, Lightning and other trainers put their own name before each:
    `_orig_mod.`, `module.`, `model.`, `net.backbone.`. wanted: the model's names. The beginning
    that makes most names fit is taken off, and what lies beside the model (a loss, a teacher,
    counters) is left out; without such a beginning the state stays as it is.
    """
    beginnings: Counter[str] = Counter()
    for key in state:
        # Cut the name at every dot, and count what stands before a name that the model knows.
        for cut in range(key.count(".") + 1):
            end = ".".join(key.split(".")[cut:])
            if end in wanted:
                beginnings[key.removesuffix(end)] += 1
    if not beginnings:
        return dict(state)
    (beginning, most), *others = beginnings.most_common(2)
    # Two that fit alike are two models in one file, such as student and teacher.
    if not beginning or (others and others[0][1] == most):
        return dict(state)
    unwrapped = {}
    for key, tensor in state.items():
        if key.startswith(beginning):
            unwrapped[key.removeprefix(beginning)] = tensor
    return unwrapped


@functools.cache
def _require_finite_once(path: Path, _mtime_ns: int) -> None:
    """Raise ValueError for NaN or infinity: training would only seem to diverge.

    Read once while the file stays.
    """
    for key, tensor in read_weights_file(path).items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{path} holds NaN or infinity in {key}: whatever wrote it had diverged; {WAY_OUT}",
            )


def _read_safetensors(path: Path, device: str) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device="cpu") as stored:
        if device != "meta":
            return {key: stored.get_tensor(key) for key in stored.keys()}
        # The header has the shapes; safetensors itself has no way to read onto `meta`.
        shapes_alone = {}
        for key in stored.keys():
            shape = stored.get_slice(key).get_shape()
            shapes_alone[key] = torch.empty(shape, device=device)
        return shapes_alone


def require_fit(
    state: Mapping[str, Tensor],
    family: Family,
    model: nn.Module,
    name: str,
    path: Path,
) -> None:
    """See that every tensor has its place and shape in `model`,
    as far as its family is bound to shapes.

    Raises ValueError with the first differences and the model that was expected.
    """
    wanted = without_head(model.state_dict(), family.head_name(model))
    wrong = []
    for key in wanted:
        if key not in state:
            wrong.append(f"{key} is missing")
            continue
        shape = tuple(state[key].shape)
        expected = family.misfit(key, shape, model)
        if expected:
            wrong.append(f"{key} is {shape}, not {expected}")
    wrong += [f"{key} is unknown" for key in state if key not in wanted]
    if wrong:
        # One wrong architecture makes hundreds of differences: three show which it is.
        shown = "; ".join(wrong[:3])
        more = " ..." if wrong[3:] else ""
        raise ValueError(
            f"{path} does not hold weights of {name}: {shown}{more}."
            " Name the file's own architecture with --model, or another file with --weights"
        )
