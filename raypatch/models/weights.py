"""Pretrained weights at their native patch size: from timm's hub or an own file, checked against the model."""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg, VisionTransformer, clean_state_dict, get_pretrained_cfg
from torch import Tensor

from raypatch.config import TrialConfig
from raypatch.own_files import locate_own_file

KERNEL, POSITIONS, HEAD = "patch_embed.proj.weight", "pos_embed", "head."
WAY_OUT = "give a local file with --weights FILE, or train from scratch with --weights random"


def read_native_state(
    config: TrialConfig, model: VisionTransformer, files: Mapping[str, Path], *, device: str = "cpu"
) -> dict[str, Tensor]:
    """Read the pretrained state that `config` names, without its classification head, and see that it fits `model`.

    device: `meta` reads the names and shapes of an own file alone. Raises ValueError when the state cannot be had or
    does not fit: no network, no such weights, an unreadable or changed file, another architecture.
    """
    if config.weights == "timm":
        return _without_head(_read_hub_state(config.model))
    path = locate_own_file(config.weights, files, option="--weights")
    state = _without_head(read_weights_file(path, device=device))
    require_fit(state, model, config.model, path)
    return state


def ensure_weights(config: TrialConfig, model: VisionTransformer, files: Mapping[str, Path]) -> None:
    """Download hub weights that are not yet here; check an own file by its names and shapes. Raises ValueError."""
    if config.weights != "timm":
        read_native_state(config, model, files, device="meta")
    elif not _cached_hub_file(_hub_source(config.model)):
        _read_hub_state(config.model)


def normalisation(config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that the weights expect of pixels from 0 to 1.

    Those of timm's weights under the model's name and tag, also for an own file; 0.5 and 0.5 for random weights.
    """
    source = None if config.weights == "random" else get_pretrained_cfg(config.model)
    return (source.mean, source.std) if source else ((0.5,) * 3, (0.5,) * 3)


def _without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(HEAD)}


def read_weights_file(path: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from .pth as a whole, under `model` or under `state_dict`.

    device: `meta` reads names and shapes alone. Raises ValueError when the file cannot be read, holds other Python
    objects than tensors, or no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path, device)
        content = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no PyTorch file of tensors alone, and raypatch loads no other Python objects;"
            " save the model's state_dict() by itself, best as .safetensors"
        ) from error
    except Exception as error:  # the readers raise many kinds for a damaged file; all mean the same here
        raise ValueError(f"cannot read the weights in {path}: {error}; {WAY_OUT}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict (names with tensors); save the model's state_dict() by itself")
    return dict(clean_state_dict(content))


def _read_safetensors(path: Path, device: str) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device="cpu") as stored:
        if device == "meta":
            return {key: torch.empty(stored.get_slice(key).get_shape(), device=device) for key in stored.keys()}
        return {key: stored.get_tensor(key) for key in stored.keys()}


def _hub_source(name: str) -> PretrainedCfg:
    source = get_pretrained_cfg(name)
    if source is None or not source.has_weights:
        raise ValueError(f"timm has no pretrained weights for {name}; {WAY_OUT}")
    return source


def _cached_hub_file(source: PretrainedCfg) -> str | None:
    """The downloaded file of `source`, if any: naming it spares every trial a question to the hub."""
    from huggingface_hub import try_to_load_from_cache

    for filename in ("model.safetensors", "pytorch_model.bin"):
        found = source.hf_hub_id and try_to_load_from_cache(source.hf_hub_id, source.hf_hub_filename or filename)
        if isinstance(found, str):
            return found
    return None


def _read_hub_state(name: str) -> dict[str, Tensor]:
    """Read timm's weights at native size by timm itself, which knows how to convert each of their formats."""
    source = _hub_source(name)
    cached = _cached_hub_file(source)
    if not cached and source.hf_hub_id:
        _require_hub(source.hf_hub_id)
    try:
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": cached} if cached else {})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot get timm's weights for {name}: {error}; {WAY_OUT}") from error
    return dict(model.state_dict())


def _require_hub(repository: str) -> None:
    """Ask the hub once: its own client tries a dozen times over most of a minute before it says there is no network."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(repository, "model.safetensors"), timeout=10)
    except HfHubHTTPError:
        return  # it answered: what is wrong with this file is for the download to say
    except Exception as error:  # the client's HTTP library, and so its errors, differ by version
        raise ValueError(
            f"no network, and the weights {repository} were never downloaded here ({error}); {WAY_OUT}"
        ) from error


def require_fit(state: Mapping[str, Tensor], model: VisionTransformer, name: str, path: Path) -> None:
    """See that every tensor has its place and shape in `model`; the grids of kernel and positions are free.

    Raises ValueError with the first differences and the model that was expected.
    """
    wanted = _without_head(model.state_dict())
    wrong = []
    for key, tensor in wanted.items():
        if key not in state:
            wrong.append(f"{key} is missing")
        elif expected := _shape_wanted(key, tuple(state[key].shape), tuple(tensor.shape), prefix_positions(model)):
            wrong.append(f"{key} is {tuple(state[key].shape)}, not {expected}")
    wrong += [f"{key} is unknown" for key in state if key not in wanted]
    if wrong:
        raise ValueError(
            f"{path} does not hold weights of {name}: {'; '.join(wrong[:3])}{' ...' if wrong[3:] else ''}."
            " Name the file's own architecture with --model, or another file with --weights"
        )


def _shape_wanted(key: str, found: tuple[int, ...], wanted: tuple[int, ...], prefix: int) -> str:
    """The shape that a tensor should have, in words; empty when it has it."""
    if key == KERNEL:
        fits = len(found) == 4 and found[:2] == wanted[:2]
        return "" if fits else f"({wanted[0]}, {wanted[1]}, any, any)"
    if key == POSITIONS:
        patches = found[1] - prefix if len(found) == 3 else 0
        fits = patches > 0 and math.isqrt(patches) ** 2 == patches and found[::2] == wanted[::2]
        return "" if fits else f"(1, {prefix} + a square, {wanted[2]})"
    return "" if found == wanted else str(wanted)


def prefix_positions(model: VisionTransformer) -> int:
    """How many learned positions belong to the class token and registers, before those of the patches."""
    return 0 if model.no_embed_class else model.num_prefix_tokens
