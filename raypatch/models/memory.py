"""How much memory training takes, by formula,
and the micro-batch that fits into what the device has.
"""

import logging
import os
from typing import Literal

import torch

from raypatch.config import TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.data.resize import held_size
from raypatch.machine.runtime import Precision
from raypatch.methods import find_method
from raypatch.models.families import find_family
from raypatch.models.flops import body_facts
from raypatch.models.heads import bare_model
from raypatch.models.prepared import PreparedModel, evaluation_batch
from raypatch.results import ModelFacts
from raypatch.trial_fields.objective import projection_parameters, views_as_images

logger = logging.getLogger(__name__)

USABLE_SHARE = 0.85
"""Share of the available memory to plan with;
the rest is for the images, the libraries and fragmentation.
"""

RESERVE = 1.1
"""The estimate's own margin: it may be over, never under."""

LIBRARY_BYTES = 32 << 20
"""What torch gives cuBLAS to work in on a Hopper card;
on older ones about 8 MiB (torch's notes on CUDA).
"""


def activation_bytes(
    config: TrialConfig,
    facts: ModelFacts,
    precision: Precision,
    *,
    checkpointing: bool,
) -> int:
    """Bytes that one image's forward pass leaves for its backward pass,
    plus those a backward pass works in.

    With a method that trains the head alone nothing is kept.
    """
    activations = find_family(config.model).activations(config, body_facts(facts), precision)
    if not find_method(config.method).trains_backbone:
        return activations.passing
    # Pretraining sees several views of an image.
    images = views_as_images(config, config.image_size, config.patch_size) if config.makes_weights else 1
    if checkpointing and activations.checkpointed is not None:
        return int(images * activations.checkpointed)
    return int(images * activations.kept)


def training_bytes(
    config: TrialConfig,
    facts: ModelFacts,
    precision: Precision,
    *,
    micro_batch: int,
    checkpointing: bool = False,
) -> int:
    """Estimated peak bytes of a training step on a device, as its allocator counts them.

    Gradients come as activations go, so that a batch in one pass peaks at its beginning or at its
    end. Of several passes the later ones find the gradients there and add each parameter's anew.
    In bfloat16 a pass makes gradients in that precision.
    """
    trained = facts.parameters if find_method(config.method).trains_backbone else 0
    activations = activation_bytes(config, facts, precision, checkpointing=checkpointing)
    passing = min(micro_batch, config.batch_size) * activations
    # One pass: its activations have gone by the time that all gradients are there.
    peak = max(passing, (2 if precision == "bfloat16" else 4) * trained)
    if micro_batch < config.batch_size and precision == "float32":
        # Several passes: the last one still has its activations when it adds to all gradients.
        largest = min(
            trained,
            find_family(config.model).activations(config, body_facts(facts), precision).largest_gradient,
        )
        peak = 4 * trained + max(passing, 4 * largest)
    return _with_margin(_held_bytes(config, facts, precision) + peak)


def peak_bytes(
    config: TrialConfig,
    info: DatasetInfo,
    facts: ModelFacts,
    precision: Precision,
    *,
    micro_batch: int,
    checkpointing: bool = False,
) -> int:
    """Estimated peak bytes of a whole trial on a device:
    its images, one byte a pixel of the size they are held in, and training or evaluation.
    """
    images = info.training_images(config.train_fraction) + sum(info.counts[1:])
    edge = held_size(info.size, config.image_size, config.resize)
    resident: int = images * info.channels * edge**info.dimensions
    training = training_bytes(config, facts, precision, micro_batch=micro_batch, checkpointing=checkpointing)
    batch = evaluation_bytes(config, info, facts, precision)
    evaluation = _with_margin(_held_bytes(config, facts, precision) + batch)
    return resident + max(training, evaluation)


def evaluation_bytes(
    config: TrialConfig,
    info: DatasetInfo,
    facts: ModelFacts,
    precision: Precision,
) -> int:
    """Bytes that the largest batch of an evaluation takes, beside what training holds on to.

    First its three channels as float32, again as patches, and in
    bfloat16; then the input and what passes the model.
    """
    pixels: int = config.image_size**info.dimensions
    images = min(max(info.counts[1:]), evaluation_batch(facts.tokens, pixels))
    passing = find_family(config.model).activations(config, body_facts(facts), precision).passing
    return images * max(pixels * 3 * (4 + 4 + 2), pixels * 3 * 4 + passing)


def _held_bytes(config: TrialConfig, facts: ModelFacts, precision: Precision) -> int:
    """Weights and what else is always there: moments, and in bfloat16 rounded weights and float32 gradients."""
    rounded = 2 if precision == "bfloat16" else 0
    if not find_method(config.method).trains_backbone:
        return (4 + rounded) * facts.parameters
    # SGD keeps a momentum, AdamW and Adam two moments, in float32 each.
    moments = 4 if config.optimizer == "sgd" else 8
    gradients = 4 if precision == "bfloat16" else 0
    # The teacher beside the student, and the heads of both with their gradient.
    beside = 4 * facts.parameters + 20 * projection_parameters(config) if config.makes_weights else 0
    return (4 + moments + rounded + gradients) * facts.parameters + beside


def _with_margin(needed: int) -> int:
    return int(RESERVE * needed) + LIBRARY_BYTES


def available_bytes(device: torch.device) -> int:
    """Bytes now free on a CUDA device; of a CPU all its memory,
    so that a resumed trial divides its batches alike.
    """
    if device.type == "cuda":
        # What other processes hold on the card is not free, what this one's allocator keeps is.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def choose_micro_batch(
    config: TrialConfig, facts: ModelFacts, precision: Precision, available: int
) -> tuple[int, bool]:
    """The largest halving of batch_size whose estimate fits into `available` bytes,
    and whether it needs checkpointing.

    Checkpointing comes in only where not even one image fits without
    it; one image with it is the last resort.
    """
    activations = find_family(config.model).activations(config, body_facts(facts), precision)
    choices = (False,) if activations.checkpointed is None else (False, True)
    for checkpointing in choices:
        micro_batch = config.batch_size
        # Halved, not fitted to the byte: the estimate is not as exact as that.
        while micro_batch:
            need = training_bytes(config, facts, precision, micro_batch=micro_batch, checkpointing=checkpointing)
            if need <= USABLE_SHARE * available:
                return micro_batch, checkpointing
            micro_batch //= 2
    return 1, choices[-1]


def fit_memory(prepared: PreparedModel, config: TrialConfig, asked: int | Literal["auto"]) -> int:
    """Return the images of one pass: `asked`, or as many as fit,
    with activation checkpointing where it must be.
    """
    if asked != "auto":
        return asked
    available = available_bytes(prepared.device)
    micro_batch, checkpointing = choose_micro_batch(config, prepared.facts, prepared.precision, available)
    if checkpointing:
        prepared.family.use_checkpointing(bare_model(prepared.model))
    if checkpointing or micro_batch < config.batch_size:
        logger.info(
            "micro_batch=%d, activation checkpointing %s",
            micro_batch,
            "on" if checkpointing else "off",
        )
    return micro_batch
