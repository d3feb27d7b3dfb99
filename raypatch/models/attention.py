"""Which of two ways computes attention among few tokens on a CPU: torch's fused kernel, or plain products."""

import contextlib
import hashlib
import json
import os
import time

import torch
from timm.layers.attention import Attention
from torch import nn

from raypatch.machine.environment import cache_folder
from raypatch.machine.runtime import provenance
from raypatch.models.prepared import PreparedModel

MOST_TOKENS = 128
"""Up to so many tokens plain products may be faster; they keep a map of tokens x tokens for each head."""

LEAST_NUMBERS = 8192
"""Numbers that go into an attention layer, below which both ways take no time to speak of."""

WORTHWHILE = 0.95
"""What plain products may take of the fused kernel's time at most to be chosen."""

MEASURED_IMAGES = 8
REPEATS = 15
"""The least of so many, for the answer stays: five were wrong once on a busy machine."""


def choose_attention(prepared: PreparedModel, images: int) -> None:
    """Let the model compute attention in the way that is faster here for passes of so many images.

    It is measured once on a machine and written down, so that the same trial does the same arithmetic again. Fused
    stay float32, where results are the same to the bit on all machines of a kind, and a CUDA device, where small steps
    are bound by the number of kernels.
    """
    tokens = prepared.facts.tokens
    layers = _layers(prepared.model)
    if prepared.device.type != "cpu" or prepared.precision != "bfloat16" or tokens is None or not layers:
        return
    measured = min(images, MEASURED_IMAGES)
    numbers = measured * (tokens + 1) * layers[0].qkv.in_features
    if tokens <= MOST_TOKENS and numbers >= LEAST_NUMBERS:
        seconds = _known_seconds(layers[0], measured, tokens + 1)
        use_plain_attention(prepared.model, seconds["plain"] <= WORTHWHILE * seconds["fused"])


def use_plain_attention(model: nn.Module, plain: bool) -> None:
    """Let attention be plain products, or torch's fused kernel."""
    for layer in _layers(model):
        # Final to timm's scripting alone, which is not used here.
        _switch(layer, fused=not plain)


def _switch(layer: Attention, *, fused: bool) -> None:
    layer.fused_attn = fused  # type: ignore[misc]  # timm declares it final, for TorchScript


def has_plain_attention(model: nn.Module) -> bool:
    """Whether attention is plain products; False without attention."""
    layers = _layers(model)
    return bool(layers) and not layers[0].fused_attn


def _layers(model: nn.Module) -> list[Attention]:
    # By type: one derived from it may read its switch otherwise.
    return [module for module in model.modules() if type(module) is Attention]


def _known_seconds(layer: Attention, images: int, tokens: int) -> dict[str, float]:
    """Seconds of the layer both ways, from the file of an earlier measurement or measured now."""
    found = provenance()
    named = {name: found[name] for name in ("torch", "timm", "cpu", "threads")}
    named["layer"] = f"{images} images, {tokens} tokens, {layer.num_heads} heads of {layer.head_dim}"
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]
    path = cache_folder() / f"attention-{digest}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _read(path.read_text("utf-8"))
    seconds = measure_attention(layer, images, tokens)
    # Of trials that measure at the same time the first one decides. Without a place for it each measures anew.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        aside.write_text(json.dumps(named | {"seconds": seconds}, indent=1), "utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
        aside.unlink()
        return _read(path.read_text("utf-8"))
    return seconds


def _read(text: str) -> dict[str, float]:
    seconds = json.loads(text)["seconds"]
    return {way: float(seconds[way]) for way in ("fused", "plain")}


def measure_attention(layer: Attention, images: int, tokens: int) -> dict[str, float]:
    """Least seconds of one attention layer forward and back, `fused` and `plain`, measured in turn."""
    inputs = torch.randn(images, tokens, layer.qkv.in_features, requires_grad=True)
    before = layer.fused_attn
    taken: dict[str, list[float]] = {"fused": [], "plain": []}
    try:
        for _ in range(1 + REPEATS):
            for way, seconds in taken.items():
                _switch(layer, fused=way == "fused")
                seconds.append(_seconds_of(layer, inputs))
    finally:
        _switch(layer, fused=before)
    # The first one warms up; other work on the machine can only add to the rest.
    return {way: min(seconds[1:]) for way, seconds in taken.items()}


def _seconds_of(layer: Attention, inputs: torch.Tensor) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(inputs)
    # The gradient of the inputs alone: that of the weights is the same work both ways.
    torch.autograd.grad(outputs.sum(), inputs)
    return time.perf_counter() - started
