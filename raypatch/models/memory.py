"""How much memory training takes, by formula,
and the micro-batch that fits into what the device has.
"""

import functools
import logging
import os
from typing import Literal

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.resize import held_size
from raypatch.data.catalog import DatasetInfo
from raypatch.machine.runtime import Precision, resolve_device
from raypatch.methods import find_method
from raypatch.models.families import find_family
from raypatch.models.families.parts.measured import measure_activations
from raypatch.models.families.protocol import Activations
from raypatch.models.flops import body_facts, mask_head_of
from raypatch.models.heads import bare_model
from raypatch.models.mask_head import loss_bytes
from raypatch.models.prepared import PreparedModel, evaluation_batch
from raypatch.results import ModelFacts
from raypatch.trial_fields.objective import projection_parameters, views_as_images

logger = logging.getLogger(__name__)

USABLE_SHARE = 0.85
"""Share of the available memory to plan with;
the rest is for the images, the libraries and fragmentation.
"""

RESERVE = 1.15
"""The estimate's own margin: it may be over, never under what torch's allocator reserves."""

FRAGMENTATION = 1.3
"""What the allocator reserves for the passing tensors of a recording and of the steps beside it, by what they take."""

LIBRARY_BYTES = 32 << 20
"""What torch gives cuBLAS to work in on a Hopper card, for each thread and stream;
on older ones about 8 MiB (torch's notes on CUDA).
"""

CONTEXT_BYTES = 600 << 20
"""Memory that a process takes on a GPU before its first tensor."""

WORKSPACES = 2
"""cuBLAS is called by the thread of the forward and by that of the backward pass; for a recording on a stream more."""

RECORDED_GFLOPS = 4000.0
"""Arithmetic of the largest step that is recorded. Longer ones, of 15 to 30 ms on an H100, take the device longer than
the processor takes to launch their kernels: a recording would cost memory and save nothing."""


def is_recorded(config: TrialConfig, facts: ModelFacts, micro_batch: int) -> bool:
    """Whether a CUDA device records the training step: in one pass, and short."""
    passes = 3 if find_method(config.method).trains_backbone else 1
    return micro_batch >= config.batch_size and passes * facts.gflops * config.batch_size <= RECORDED_GFLOPS


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
    activations = _activations(config, facts, precision)
    if not find_method(config.method).trains_backbone:
        return activations.passing
    # Pretraining sees several views of an image.
    images = views_as_images(config, config.image_size, config.patch_size) if config.makes_weights else 1
    if checkpointing and activations.checkpointed is not None:
        return int(images * activations.checkpointed)
    return int(images * activations.kept)


@functools.cache
def _activations(config: TrialConfig, facts: ModelFacts, precision: Precision) -> Activations:
    """What an image takes in the model; a head of masks takes its own beside the body's."""
    body = find_family(config.model).activations(config, body_facts(facts), precision)
    found = mask_head_of(facts)
    if found is None:
        return body
    head, (width, *places) = found
    own = measure_activations(head, places, precision, channels=width)
    outputs = next(reversed(list(head.parameters()))).numel()
    more = own.kept + loss_bytes(outputs, config.image_size)
    return Activations(
        kept=body.kept + more,
        checkpointed=None if body.checkpointed is None else body.checkpointed + more,
        passing=max(body.passing, own.passing),
        largest_gradient=max(body.largest_gradient, own.largest_gradient),
    )


def training_bytes(
    config: TrialConfig,
    facts: ModelFacts,
    precision: Precision,
    *,
    micro_batch: int,
    checkpointing: bool = False,
) -> int:
    """Estimated peak bytes of a training step on a device, as its allocator counts them."""
    working = _working_bytes(config, facts, precision, micro_batch, checkpointing=checkpointing)
    return _with_margin(_held_bytes(config, facts, precision) + working)


def _working_bytes(
    config: TrialConfig, facts: ModelFacts, precision: Precision, micro_batch: int, *, checkpointing: bool
) -> int:
    """Bytes of a training step beside what is always there.

    Gradients come as activations go, so that a batch in one pass peaks at its beginning or at its
    end. Of several passes the later ones find the gradients there and add each parameter's anew.
    In bfloat16 a pass makes gradients in that precision.
    """
    trained = facts.parameters if find_method(config.method).trains_backbone else 0
    activations = activation_bytes(config, facts, precision, checkpointing=checkpointing)
    passing = min(micro_batch, config.batch_size) * activations
    if precision == "float32" and micro_batch < config.batch_size:
        # Several passes: the last one still has its activations when it adds to all gradients.
        largest = min(trained, _activations(config, facts, precision).largest_gradient)
        return 4 * trained + max(passing, 4 * largest)
    # One pass: its activations have gone by the time that all gradients are there.
    return max(passing, (2 if precision == "bfloat16" else 4) * trained)


def peak_bytes(
    config: TrialConfig,
    info: DatasetInfo,
    facts: ModelFacts,
    precision: Precision,
    *,
    micro_batch: int,
    checkpointing: bool = False,
    recorded: bool = False,
) -> int:
    """Estimated peak bytes of a whole trial on a device:
    its images, one byte a pixel of the size they are held in, and training or evaluation.

    recorded: whether the device records the step, see is_recorded.
    """
    resident = resident_bytes(config, info)
    held = _held_bytes(config, facts, precision)
    working = _working_bytes(config, facts, precision, micro_batch, checkpointing=checkpointing)
    evaluation = evaluation_bytes(config, info, facts, precision)
    if not recorded:
        return resident + _with_margin(held + max(working, evaluation))
    # A recording's memory is its own: beside it come evaluation and the last batch of an epoch, which is not recorded.
    rest = info.training_images(config.train_fraction) % config.batch_size
    short = _working_bytes(config, facts, precision, rest, checkpointing=checkpointing) if rest else 0
    return resident + _with_margin(held + evaluation, streams=2) + int(FRAGMENTATION * (working + short))


def resident_bytes(config: TrialConfig, info: DatasetInfo) -> int:
    """Bytes of a trial's images, where they lie on the device."""
    images = info.training_images(config.train_fraction) + sum(info.counts[1:])
    edge = held_size(info.size, config.image_size, config.resize)
    size: int = images * info.channels * edge**info.dimensions
    if info.task == "segmentation":
        # Masks are held as the file has them.
        size += images * info.size**2
    return size


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
    passing = _activations(config, facts, precision).passing
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


def _with_margin(needed: int, *, streams: int = 1) -> int:
    return int(RESERVE * needed) + streams * WORKSPACES * LIBRARY_BYTES


def available_bytes(device: torch.device, share: float = 1.0) -> int:
    """Bytes now free on a CUDA device, at most those of a trial's share of it; of a CPU all its memory,
    so that a resumed trial divides its batches alike.
    """
    if device.type == "cuda":
        # What other processes hold on the card is not free, what this one's allocator keeps is.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free, total = torch.cuda.mem_get_info(device)
        # Those that share the card may have taken none of their parts yet.
        return min(free + kept, int(share * total) - CONTEXT_BYTES) if share < 1 else free + kept
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def choose_micro_batch(
    config: TrialConfig, facts: ModelFacts, precision: Precision, available: int
) -> tuple[int, bool]:
    """The largest halving of batch_size whose estimate fits into `available` bytes,
    and whether it needs checkpointing.

    Checkpointing comes in only where not even one image fits without
    it; one image with it is the last resort.
    """
    activations = _activations(config, facts, precision)
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


def stack_bytes(
    config: TrialConfig, info: DatasetInfo, facts: ModelFacts, precision: Precision, options: RunOptions, size: int
) -> int:
    """Estimated peak bytes of `size` trials whose models train as one: the images once, and of all else as much as so
    many take that are alone.
    """
    micro_batch = config.batch_size if options.micro_batch == "auto" else options.micro_batch
    recorded = resolve_device(options.device).type == "cuda" and is_recorded(config, facts, micro_batch)
    alone = peak_bytes(config, info, facts, precision, micro_batch=micro_batch, recorded=recorded)
    images = resident_bytes(config, info)
    return images + size * (alone - images)


def stack_fits(
    config: TrialConfig, info: DatasetInfo, facts: ModelFacts, precision: Precision, options: RunOptions, size: int
) -> bool:
    """Whether so many fit at once into what is free now."""
    free = available_bytes(resolve_device(options.device))
    return stack_bytes(config, info, facts, precision, options, size) <= USABLE_SHARE * free


def fit_memory(
    prepared: PreparedModel, config: TrialConfig, asked: int | Literal["auto"], *, share: float = 1.0
) -> int:
    """Return the images of one pass: `asked`, or as many as fit,
    with activation checkpointing where it must be.

    share: of a CUDA device, that the trial may fill.
    """
    if asked != "auto":
        return asked
    available = available_bytes(prepared.device, share)
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
