"""The model of a trial, of any family: constructed,
started from pretrained or random weights, or only checked.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from raypatch.config import TrialConfig
from raypatch.models.families import Family, find_family
from raypatch.models.families.timm_image import TimmImage
from raypatch.models.heads import (
    BODY_FIELDS,
    HeadedModel,
    feature_kind,
    feature_shape,
    has_own_head,
    head_of,
    make_head,
)
from raypatch.models.weights import ensure_weights, read_native_state

ARCHITECTURE_FIELDS = (*BODY_FIELDS, "head")
"""Fields of a trial that decide its model's shape."""

MODEL_FIELDS = (*ARCHITECTURE_FIELDS, "weights", "inflation")
"""Fields of a trial that decide what its model starts as, but for the head, which the seed draws."""


@dataclass(frozen=True)
class BuiltModel:
    """A model and the normalisation that its weights expect.

    model: normalised floats (B, 3, *spatial) -> logits (B, outputs). mean, std: per channel, of
    pixels from 0 to 1.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


def architecture_key(config: TrialConfig) -> tuple[object, ...]:
    """What tells the shapes of two trials' models apart,
    on data of the same dimensions and classes.
    """
    return (*(getattr(config, field) for field in ARCHITECTURE_FIELDS), feature_kind(config))


def model_key(config: TrialConfig) -> tuple[object, ...]:
    """What tells two trials' models apart, on data of the same dimensions and classes."""
    return (*(getattr(config, field) for field in MODEL_FIELDS), feature_kind(config))


def build_model(
    config: TrialConfig,
    *,
    dimensions: int,
    outputs: int,
    files: Mapping[str, Path],
) -> BuiltModel:
    """Build the model of a trial on the CPU, all of it trainable.

    Pretrained weights are brought to size by the family, and the head is drawn anew from the seed,
    the same for every size. Random weights are the family's initialisation. The global random state
    stays as it was. files: where the own files that configs name lie.

    Raises ValueError for an unknown or unfit model and for weights
    that cannot be had or do not fit.
    """
    family = find_family(config.model)
    if config.weights == "random":
        with seeded(config.seed):
            model = _construct_body(config, dimensions=dimensions, outputs=outputs)
    else:
        with torch.device("meta"):
            model = _construct_body(config, dimensions=dimensions, outputs=outputs)
        # The native state is read before memory is taken: a misfit is told at once.
        native = read_native_state(config, family, model, files)
        if _computes_buffers(model):
            # What no weights file holds, such as the frequencies of rotary positions, is made again.
            with seeded(config.seed):
                model = _construct_body(config, dimensions=dimensions, outputs=outputs)
        else:
            # Left as it comes: every weight is overwritten below, and initialising all takes seconds.
            model.to_empty(device="cpu")
        with seeded(config.seed):
            family.draw_head(model)
        # The head of the file is left out: it was drawn anew above, whatever its size was there.
        state = family.adapt_state(native, model, config, dimensions=dimensions)
        model.load_state_dict({**state, **_head_state(family, model)})
    with seeded(config.seed):
        model = _with_head(model, config, dimensions=dimensions, outputs=outputs)
    return BuiltModel(model, *normalisation_of(config))


def normalisation_of(config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel that the model of a trial expects of pixels from 0 to 1."""
    # What is pretrained from random weights is later read as weights under the model's name.
    named = config.model_copy(update={"weights": "timm"}) if config.makes_weights else config
    return find_family(config.model).normalisation(named)


def check_model(
    config: TrialConfig,
    *,
    dimensions: int,
    outputs: int,
    files: Mapping[str, Path],
) -> None:
    """See that `build_model` will succeed: an own file by its header alone,
    hub weights by having them downloaded.

    Raises ValueError as build_model does.
    """
    with torch.device("meta"):
        construct(config, dimensions=dimensions, outputs=outputs)
        model = _construct_body(config, dimensions=dimensions, outputs=outputs)
    if config.weights != "random":
        ensure_weights(config, find_family(config.model), model, files)


def construct(config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
    """Construct the model of a trial with random weights on torch's default device;
    on `meta` it takes no memory.

    Raises ValueError for an unknown model, and for fields that it needs and lacks or cannot take.
    """
    model = _construct_body(config, dimensions=dimensions, outputs=outputs)
    return _with_head(model, config, dimensions=dimensions, outputs=outputs)


def construct_finished(config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
    """Construct the model that a finished trial has: without a head where it makes weights. Raises as construct."""
    if not config.makes_weights:
        return construct(config, dimensions=dimensions, outputs=outputs)
    model = construct(config, dimensions=dimensions, outputs=1)
    model.set_submodule(find_family(config.model).head_name(model), nn.Identity())
    return model


def build_head(config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
    """Build the head of a trial on the CPU, with the weights that `build_model` draws for it.

    Raises ValueError as construct.
    """
    if config.weights == "random":
        # Its draws come after those of the other weights.
        built = build_model(config, dimensions=dimensions, outputs=outputs, files={})
        return head_of(built.model, find_family(config.model))
    family = find_family(config.model)
    with torch.device("meta"):
        body = _construct_body(config, dimensions=dimensions, outputs=outputs)
    if has_own_head(config):
        head = body.get_submodule(family.head_name(body)).to_empty(device="cpu")
        with seeded(config.seed):
            family.draw_head(body)
        return head
    with seeded(config.seed):
        return head_of(_with_head(body, config, dimensions=dimensions, outputs=outputs), family)


def _construct_body(config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
    """The family's own model, with its own head."""
    family = find_family(config.model)
    family.check_fields(config, dimensions=dimensions)
    if config.output_stride is not None and not isinstance(family, TimmImage):
        raise ValueError(
            f"output_stride={config.output_stride} is for CNNs of timm, such as resnet50, not for {config.model}:"
            " leave it out"
        )
    return family.construct(config, dimensions=dimensions, outputs=outputs)


def _with_head(model: nn.Module, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
    """The model under the head that the trial asks for, which is drawn on torch's default device."""
    if has_own_head(config):
        return model
    family = find_family(config.model)
    shape = feature_shape(config, family, dimensions=dimensions, outputs=outputs)
    return HeadedModel(family, model, make_head(config, shape, outputs), feature_kind(config))


def _computes_buffers(model: nn.Module) -> bool:
    """Whether the model has tensors that are no part of its state, and so of no weights file."""
    stored = model.state_dict()
    return any(name not in stored for name, _ in model.named_buffers())


def _head_state(family: Family, model: nn.Module) -> dict[str, torch.Tensor]:
    name = family.head_name(model)
    return model.get_submodule(name).state_dict(prefix=f"{name}.")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside, and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the GPUs too.
        torch.default_generator.manual_seed(seed)
        yield
