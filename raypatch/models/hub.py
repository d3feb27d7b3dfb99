"""Pretrained weights from timm's hub, at their native size; downloaded once."""

import timm
import torch
from safetensors import SafetensorError
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor

WAY_OUT = "give a local file with --weights FILE, or train from scratch with --weights random"


def fetch_hub_state(name: str) -> None:
    """Download the weights of timm's model `name` where they are not yet here.

    Raises ValueError.
    """
    if not _cached_hub_file(_hub_source(name)):
        read_hub_state(name)


def _hub_source(name: str) -> PretrainedCfg:
    source = get_pretrained_cfg(name)
    if source is None or not source.has_weights:
        raise ValueError(f"timm has no pretrained weights for {name}; {WAY_OUT}")
    return source


def _cached_hub_file(source: PretrainedCfg) -> str | None:
    """The downloaded file of `source`, if any: naming it spares every trial a question to the hub."""
    from huggingface_hub import try_to_load_from_cache

    for filename in ("model.safetensors", "pytorch_model.bin"):
        if not source.hf_hub_id:
            return None
        wanted = source.hf_hub_filename or filename
        path = try_to_load_from_cache(source.hf_hub_id, wanted)
        # None for a file that was never asked for, an object for one that the hub is known to lack.
        if isinstance(path, str):
            return path
    return None


def read_hub_state(name: str) -> dict[str, Tensor]:
    """Read timm's weights at native size by timm itself,
    which knows how to convert each of their formats.
    """
    source = _hub_source(name)
    cached = _cached_hub_file(source)
    if not cached and source.hf_hub_id:
        _require_hub(source.hf_hub_id)
    try:
        # timm first draws random weights: the caller's random numbers must not move by that.
        with torch.random.fork_rng(devices=[]):
            overlay = {"file": cached} if cached else {}
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot get timm's weights for {name}: {error}; {WAY_OUT}") from error
    return dict(model.state_dict())


def _require_hub(repository: str) -> None:
    """Ask the hub once: its own client tries a dozen times over most of a minute before it says
    there is no network.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(repository, "model.safetensors"), timeout=10)
    except HfHubHTTPError:
        # It answered: what is wrong with this file is for the download to say.
        return
    # The client's HTTP library, and so its errors, differ by version.
    except Exception as error:
        raise ValueError(
            f"no network, and the weights {repository} were never downloaded here ({error}); {WAY_OUT}"
        ) from error
