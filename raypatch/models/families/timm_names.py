"""What timm knows of a model by its name: architecture, tag of the weights, normalisation."""

import logging

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg

from raypatch.config import TrialConfig

logger = logging.getLogger(__name__)

HALF = ((0.5,) * 3, (0.5,) * 3)
"""Mean and standard deviation for weights that expect none: random ones."""


def architecture_of(model: str) -> str:
    """The name without the tag of its weights."""
    return model.partition(".")[0]


def is_timm_model(model: str) -> bool:
    """Whether timm has the architecture, whatever the tag."""
    return timm.is_model(architecture_of(model))


def list_tagged(model: str) -> list[str]:
    """The architecture of `model` under the tag of each of its weights; the first is timm's own choice."""
    architecture = architecture_of(model)
    tagged = timm.list_models(f"{architecture}.*", include_tags=True)
    chosen = named_weights(architecture)
    return sorted(tagged, key=lambda name: name != chosen)


def named_weights(model: str) -> str:
    """The full name of the weights that `model` means: without a tag timm takes its first."""
    source = get_pretrained_cfg(model)
    if source is None or not source.tag:
        return model
    return f"{architecture_of(model)}.{source.tag}"


def check_tag(model: str) -> None:
    """Raise ValueError for a tag that timm does not know."""
    architecture, _, tag = model.partition(".")
    if not tag:
        return
    tagged = list_tagged(model)
    if model not in tagged:
        raise ValueError(
            f"model {architecture} has no weights tagged {tag!r}; use one of {', '.join(tagged) or architecture}",
        )


def choice_of_tag(model: str) -> str:
    """A sentence on which weights a name without a tag means, where there are several; else empty."""
    others = list_tagged(model)
    if "." in model or len(others) < 2:
        return ""
    return f"model {model} names no tag: of {len(others)} weights timm's first is taken, {others[0]}"


def pretrained_source(model: str) -> PretrainedCfg:
    """What timm knows of the weights that `model` means; its defaults where there are none."""
    return get_pretrained_cfg(model) or PretrainedCfg()


def timm_normalisation(config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the weights under the model's name and tag, also for an own file;
    0.5 and 0.5 for random ones.
    """
    source = None if config.weights == "random" else get_pretrained_cfg(config.model)
    if source is None:
        return HALF
    return source.mean, source.std
