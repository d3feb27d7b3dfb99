"""How much memory training takes, by formula, and the micro-batch that fits into what the device has."""

import functools
import logging
import os
from typing import Literal

import torch
from timm.models import VisionTransformer

from raypatch.config import TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.models.build import construct
from raypatch.results import ModelFacts
from raypatch.runtime import Precision

logger = logging.getLogger(__name__)

USABLE_SHARE = 0.85
"""Share of the available memory to plan with; the rest is for the images, the libraries and fragmentation."""

RESERVE = 1.1
"""The estimate's own margin: it may be over, never under."""

LIBRARY_BYTES = 32 << 20
"""What torch gives cuBLAS to work in on a Hopper card; on older ones about 8 MiB (torch's notes on CUDA)."""

TOKENS_PER_BATCH = 16_384
PIXELS_PER_BATCH = 2**22


def evaluation_batch(tokens: int, pixels: int) -> int:
    """Images of so many tokens and pixels in one evaluation batch: enough to fill a device.

    It follows from their size alone, so the same images give the same bits every time.
    """
    return max(1, min(TOKENS_PER_BATCH // (tokens + 1), PIXELS_PER_BATCH // pixels))


@functools.cache
def _width_and_depth(model: str, image_size: int, patch_size: int) -> tuple[int, int]:
    with torch.device("meta"):
        built = construct(model, image_size, patch_size, dimensions=2, outputs=2)
    return built.embed_dim, len(built.blocks)


def activation_bytes(config: TrialConfig, facts: ModelFacts, precision: Precision, *, checkpointing: bool) -> int:
    """Bytes that one image's forward pass leaves for its backward pass, plus those a backward pass works in.

    Per block of a Vision Transformer with scaled_dot_product_attention, in units of tokens x width: the two norms keep
    their float32 inputs (2 x 4 bytes); in the products' precision are kept the inputs of the four linear layers (1, 1,
    1, 4), of which attention's output is one, query, key and value (3) and the input of GELU (4): 14 elements.
    Checkpointing keeps one float32 input per block and recomputes one block at a time. The backward pass works in two
    float32 units and the widest tensor. With method=linear_probe nothing is kept.
    """
    width, depth = _width_and_depth(config.model, config.image_size, config.patch_size)
    unit = (facts.tokens + 1) * width
    element = _element(precision)
    if config.method == "linear_probe":
        return unit * _forward_width(precision)
    block = unit * (2 * 4 + 14 * element)
    working = unit * (2 * 4 + 4 * element)
    return working + (block + depth * unit * 4 if checkpointing else depth * block)


def training_bytes(
    config: TrialConfig, facts: ModelFacts, precision: Precision, *, micro_batch: int, checkpointing: bool = False
) -> int:
    """Estimated peak bytes of a training step on a device, as its allocator counts them.

    Gradients come as activations go, so that a batch in one pass peaks at its beginning or at its end. Of several
    passes the later ones find the gradients there and add each parameter's anew. Autocast keeps the cast weights of a
    pass.
    """
    width, depth = _width_and_depth(config.model, config.image_size, config.patch_size)
    trained = facts.parameters if config.method == "finetune" else 0
    activations = activation_bytes(config, facts, precision, checkpointing=checkpointing)
    passing = min(micro_batch, config.batch_size) * activations + (2 * trained if precision == "bfloat16" else 0)
    peak = max(passing, 4 * trained)
    if micro_batch < config.batch_size:
        largest = min(trained, max(4 * width**2, facts.parameters - 12 * depth * width**2))
        peak = 4 * trained + max(passing, 4 * largest)
    return _with_margin(_held_bytes(config, facts) + peak)


def peak_bytes(
    config: TrialConfig,
    info: DatasetInfo,
    facts: ModelFacts,
    precision: Precision,
    *,
    micro_batch: int,
    checkpointing: bool = False,
) -> int:
    """Estimated peak bytes of a whole trial on a device: its images, one byte a pixel, and training or evaluation."""
    train, val, test = info.counts
    resident = int((train * config.train_fraction + val + test) * info.channels * config.image_size**info.dimensions)
    training = training_bytes(config, facts, precision, micro_batch=micro_batch, checkpointing=checkpointing)
    evaluation = _with_margin(_held_bytes(config, facts) + evaluation_bytes(config, info, facts, precision))
    return resident + max(training, evaluation)


def evaluation_bytes(config: TrialConfig, info: DatasetInfo, facts: ModelFacts, precision: Precision) -> int:
    """Bytes that the largest batch of an evaluation takes, beside what training holds on to.

    First its three channels as float32, again as patches, and in bfloat16; then the input and a block's tokens.
    """
    width, _ = _width_and_depth(config.model, config.image_size, config.patch_size)
    pixels: int = config.image_size**info.dimensions
    images = min(max(info.counts[1:]), evaluation_batch(facts.tokens, pixels))
    tokens = (facts.tokens + 1) * width * _forward_width(precision)
    return images * max(pixels * 3 * (4 + 4 + 2), pixels * 3 * 4 + tokens)


def _element(precision: Precision) -> int:
    return 2 if precision == "bfloat16" else 4


def _forward_width(precision: Precision) -> int:
    """Bytes per token and width in a forward pass that keeps nothing: four float32 units, the widest tensor twice."""
    return 4 * 4 + 8 * _element(precision)


def _held_bytes(config: TrialConfig, facts: ModelFacts) -> int:
    """Weights and the optimizer's moments, which are always there."""
    moments = 0 if config.method == "linear_probe" else 4 if config.optimizer == "sgd" else 8
    return (4 + moments) * facts.parameters


def _with_margin(needed: int) -> int:
    return int(RESERVE * needed) + LIBRARY_BYTES


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
