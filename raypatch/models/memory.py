"""How much memory training takes, by formula, and the micro-batch that fits into what the device has."""

import functools
import logging
import os
from typing import Literal

import torch
from timm.models import VisionTransformer

from raypatch.config import TrialConfig
from raypatch.models.build import construct
from raypatch.results import ModelFacts
from raypatch.runtime import Precision

logger = logging.getLogger(__name__)

USABLE_SHARE = 0.85
"""Share of the available memory to plan with; the rest is for the images, the libraries and fragmentation."""

RESERVE = 1.1
"""The estimate's own margin: it may be over, never under."""


@functools.cache
def _width_and_depth(model: str, image_size: int, patch_size: int) -> tuple[int, int]:
    with torch.device("meta"):
        built = construct(model, image_size, patch_size, dimensions=2, outputs=2)
    return built.embed_dim, len(built.blocks)


def activation_bytes(config: TrialConfig, facts: ModelFacts, precision: Precision, *, checkpointing: bool) -> int:
    """Bytes that one image's forward pass leaves for its backward pass, plus those a backward pass works in.

    Per block of a Vision Transformer with scaled_dot_product_attention, in units of tokens x width: the two norms keep
    their float32 inputs (2 x 4 bytes); in the products' precision are kept the inputs of the four linear layers (1, 1,
    1, 4), query, key, value and the output of attention (4) and the input of GELU (4): 15 elements. Checkpointing
    keeps one float32 input per block and recomputes one block at a time. The backward pass works in two of the widest
    tensors in float32 (2 x 4 x 4 bytes). With method=linear_probe nothing is kept.
    """
    width, depth = _width_and_depth(config.model, config.image_size, config.patch_size)
    unit = (facts.tokens + 1) * width
    block = unit * (2 * 4 + 15 * (2 if precision == "bfloat16" else 4))
    working = unit * 2 * 4 * 4
    if config.method == "linear_probe":
        return working
    return working + (block + depth * unit * 4 if checkpointing else depth * block)


def training_bytes(
    config: TrialConfig, facts: ModelFacts, precision: Precision, *, micro_batch: int, checkpointing: bool = False
) -> int:
    """Estimated peak bytes of training on a device: parameters, gradients, optimizer state, copies, activations."""
    per_parameter = 4
    if config.method == "finetune":
        per_parameter += 4 + (4 if config.optimizer == "sgd" else 8)
    if precision == "bfloat16":
        per_parameter += 2  # autocast keeps the cast weights of one pass
    activations = micro_batch * activation_bytes(config, facts, precision, checkpointing=checkpointing)
    return int(RESERVE * (per_parameter * facts.parameters + activations))


def available_bytes(device: torch.device) -> int:
    """Bytes now free on a CUDA device; of a CPU all its memory, so that a resumed trial divides its batches alike."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def choose_micro_batch(
    config: TrialConfig, facts: ModelFacts, precision: Precision, available: int
) -> tuple[int, bool]:
    """The largest halving of batch_size whose estimate fits into `available` bytes, and whether it needs checkpointing.

    Checkpointing comes in only where not even one image fits without it; one image with it is the last resort.
    """
    for checkpointing in (False, True):
        micro_batch = config.batch_size
        while micro_batch:
            need = training_bytes(config, facts, precision, micro_batch=micro_batch, checkpointing=checkpointing)
            if need <= USABLE_SHARE * available:
                return micro_batch, checkpointing
            micro_batch //= 2
    return 1, True


def fit_memory(
    model: VisionTransformer,
    config: TrialConfig,
    facts: ModelFacts,
    precision: Precision,
    device: torch.device,
    asked: int | Literal["auto"],
) -> int:
    """Return the images of one pass: `asked`, or as many as fit, with activation checkpointing where it must be."""
    if asked != "auto":
        return asked
    micro_batch, checkpointing = choose_micro_batch(config, facts, precision, available_bytes(device))
    if checkpointing:
        model.set_grad_checkpointing(True)
    if checkpointing or micro_batch < config.batch_size:
        logger.info("micro_batch=%d, activation checkpointing %s", micro_batch, "on" if checkpointing else "off")
    return micro_batch
