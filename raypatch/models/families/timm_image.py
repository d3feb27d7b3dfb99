"""Every image model of timm with one classifier that is no plain Vision Transformer:
CNNs, Swin, ConvNeXt, hybrids, EVA-02, Segment Anything.

The model is timm's own, at its own patch size; where its positions are bound to the image's
size, timm resamples them.
"""

import copy
import functools
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models import hub
from raypatch.models.families.counted import CountedFamily
from raypatch.models.families.parts.heads import on_grid, replace_pointwise_head, token_layer
from raypatch.models.families.parts.inflate import INFLATABLE, inflate, inflate_state
from raypatch.models.families.protocol import AttentionTokens, MapLayer, TimmEntry
from raypatch.models.families.registry import unfit
from raypatch.models.families.timm_names import (
    architecture_of,
    check_tag,
    is_timm_model,
    pretrained_source,
    timm_normalisation,
)
from raypatch.models.families.timm_sizes import check_timm_size, construct_empty, native_size, size_arguments

BOUND_TO_SIZE = ("pos_embed", "rel_pos", "relative_position")
"""Parts of the names of tensors that timm resamples to an image size."""


class TimmImage(CountedFamily):
    """The family of timm's other image models."""

    name = "timm image model"

    def takes(self, model: str) -> bool:
        return is_timm_model(model)

    def check_fields(self, config: TrialConfig, *, dimensions: int) -> None:
        """Raise ValueError for a patch size, an unknown tag, a model with two classifiers or none, and
        a size that the model cannot take.
        """
        if config.patch_size is not None:
            raise unfit(config.model, config.patch_size)
        check_tag(config.model)
        refusal = refusal_by_name(config.model, construct=True)
        if refusal:
            raise ValueError(
                f"model {config.model} is no image classifier with one head behind its pool: {refusal};"
                " `raypatch models` lists those that are"
            )
        if dimensions == 3:
            _require_inflatable(config.model)
        check_timm_size(config.model, config.image_size)
        if config.output_stride is not None:
            _require_dilatable(config.model, config.output_stride)

    def construct(self, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
        arguments = size_arguments(config.model, config.image_size) | stride_arguments(config)
        model: nn.Module = timm.create_model(config.model, num_classes=outputs, in_chans=3, **arguments)
        if dimensions == 3:
            inflate(model)
        replace_pointwise_head(model, self.head_name(model))
        return model

    def head_name(self, model: nn.Module) -> str:
        """The layer that timm itself replaces for other classes."""
        name = _as_timms(model).pretrained_cfg["classifier"]
        assert isinstance(name, str), "see check_fields"
        return name

    def normalisation(self, config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return timm_normalisation(config)

    def fetch_weights(self, config: TrialConfig) -> None:
        hub.fetch_hub_state(config.model)

    def pretrained_state(self, config: TrialConfig) -> Mapping[str, Tensor]:
        return hub.read_hub_state(config.model)

    def misfit(self, name: str, found: tuple[int, ...], model: nn.Module) -> str:
        """Positions also fit at the size of timm's own weights, kernels over images where the model's are
        over volumes.
        """
        wanted = tuple(model.state_dict()[name].shape)
        if found == wanted or (len(wanted) == 5 and found == (*wanted[:2], *wanted[3:])):
            return ""
        if any(part in name for part in BOUND_TO_SIZE):
            architecture = str(_as_timms(model).pretrained_cfg["architecture"])
            native = construct_empty(architecture).state_dict()
            if name in native and found == tuple(native[name].shape):
                return ""
        return str(wanted)

    def adapt_state(
        self,
        native: Mapping[str, Tensor],
        model: nn.Module,
        config: TrialConfig,
        *,
        dimensions: int,
    ) -> Mapping[str, Tensor]:
        """Return the state at the model's size; timm resamples what is bound to another.

        Raises ValueError where timm cannot.
        """
        wanted = model.state_dict()
        if dimensions == 3:
            return inflate_state(native, wanted, config.inflation)
        if all(tensor.shape == wanted[name].shape for name, tensor in native.items()):
            return native
        arguments = size_arguments(config.model, config.image_size)
        try:
            # timm first draws random weights: the caller's random numbers must not move by that.
            with torch.random.fork_rng(devices=[]):
                resampled = timm.create_model(
                    config.model,
                    pretrained=True,
                    pretrained_cfg_overlay={"state_dict": dict(native)},
                    num_classes=0,
                    **arguments,
                )
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            raise ValueError(
                f"timm cannot bring the weights of {config.model} to image_size={config.image_size} ({first});"
                f" use image_size={native_size(config.model)}, or --weights random"
            ) from error
        return dict(resampled.state_dict())

    def tokens(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return what a transformer that keeps a row of tokens makes of them; None for maps."""
        features = _as_timms(model).forward_features(images)
        if not isinstance(features, Tensor) or features.ndim != 3:
            return None
        prefix = int(getattr(model, "num_prefix_tokens", 0))
        return features[:, prefix:]

    def feature_map(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return the map before the pool; a transformer's tokens on their grid where that is square."""
        features = _as_timms(model).forward_features(images)
        if not isinstance(features, Tensor):
            return None
        if features.ndim == 3:
            prefix = int(getattr(model, "num_prefix_tokens", 0))
            return on_grid(features[:, prefix:], dimensions=2)
        if getattr(model, "output_fmt", "NCHW") == "NHWC":
            return features.permute(0, 3, 1, 2)
        return features

    def attention_tokens(self, model: nn.Module) -> AttentionTokens | None:
        """Return those of a transformer that keeps one row of tokens, such as EVA-02 and BEiT."""
        before = getattr(model, "num_prefix_tokens", None)
        if before is None or not hasattr(model, "blocks"):
            return None
        reads_class_token = getattr(model, "cls_token", None) is not None and model.global_pool == "token"
        return AttentionTokens(int(before), reads_class_token)

    def map_layer(self, model: nn.Module, *, dimensions: int) -> MapLayer | None:
        """Return the end of the last stage as timm names it; of a transformer the last block's first norm."""
        tokens = self.attention_tokens(model)
        if tokens is not None:
            last = len(_as_timms(model).blocks) - 1
            return token_layer(model, f"blocks.{last}.norm1", tokens.before, dimensions)
        stages = getattr(model, "feature_info", None)
        name = stages[-1]["module"] if isinstance(stages, list) and stages else ""
        if not name or name not in dict(model.named_modules()):
            return None
        channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return MapLayer(name, _channels_second if channels_last else _as_it_is)

    def timm_entry(self, config: TrialConfig) -> TimmEntry:
        source = pretrained_source(config.model)
        return TimmEntry(
            arguments=size_arguments(config.model, config.image_size) | stride_arguments(config),
            layers={"first_conv": str(source.first_conv), "classifier": str(source.classifier)},
        )


def stride_arguments(config: TrialConfig) -> dict[str, int]:
    """What timm's constructor must be told of the stride."""
    return {} if config.output_stride is None else {"output_stride": config.output_stride}


@functools.cache
def _require_dilatable(model: str, stride: int) -> None:
    """Raise ValueError for a model that cannot be dilated to this stride."""
    try:
        construct_empty(architecture_of(model), output_stride=stride)
    # timm's models refuse an argument that they do not know in several ways.
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"model {model} has no output_stride={stride}; leave it out, or use a CNN that can be dilated, such as"
            " resnet50, convnext_tiny or efficientnet_lite0"
        ) from error


def _as_timms(model: nn.Module) -> Any:
    """The same model, with what timm adds to a module: to types, all that a module has are tensors and modules."""
    return model


def _as_it_is(output: Tensor) -> Tensor:
    return output


def _channels_second(output: Tensor) -> Tensor:
    return output.movedim(-1, 1)


def refusal_by_name(model: str, *, construct: bool = False) -> str:
    """Why a model of timm's is no classifier with one head behind its pool; empty where it is one.

    construct: also look at the model itself, without memory.
    """
    classifier = pretrained_source(model).classifier
    if classifier is None:
        return "it has none"
    if not isinstance(classifier, str):
        return f"it has {' and '.join(classifier)}"
    return _refusal_by_pass(model) if construct else ""


@functools.cache
def _refusal_by_pass(model: str) -> str:
    classifier = pretrained_source(model).classifier
    size = native_size(model)
    built = construct_empty(model, **size_arguments(model, size)).eval()
    if classifier not in dict(built.named_modules()):
        return "it has none"
    with torch.no_grad():
        pooled = TimmImage().pooled(built, torch.empty(1, 3, size, size, device="meta"))
    return "" if pooled.ndim == 2 else f"{classifier} stands before it"


@functools.cache
def published_parameters(model: str) -> int:
    """Parameters of the network as timm publishes it, its head included."""
    with torch.device("meta"):
        built = timm.create_model(model)
    return sum(parameter.numel() for parameter in built.parameters())


@functools.cache
def _require_inflatable(model: str) -> None:
    """Raise ValueError for a model that has no counterpart over volumes."""
    built = copy.deepcopy(construct_empty(model))
    reason = "its kind is not known to work over volumes"
    if isinstance(built, INFLATABLE):
        try:
            inflate(built)
        except ValueError as error:
            reason = str(error)
        else:
            return
    raise ValueError(
        f"model {model} takes images, not volumes: {reason}. For volumes use a plain Vision Transformer"
        " such as vit_small_patch16_224, or a CNN such as resnet18, efficientnet_b0, mobilenetv3_large_100, densenet121"
    )
