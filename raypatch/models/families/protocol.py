"""What a model family is: which models it has, how they are built, started from weights,
and what they cost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.machine.runtime import Precision
from raypatch.results import ModelFacts


@dataclass(frozen=True)
class Activations:
    """What one image takes in memory, bytes, and the model's largest gradient.

    kept: what a forward pass leaves for its backward pass, with what that pass works in.
    checkpointed: the same where activations are computed again (activation checkpointing);
    None where the family cannot.
    passing: of a forward pass that keeps nothing.
    largest_gradient: parameters whose gradient comes at once, count.
    """

    kept: int
    checkpointed: int | None
    passing: int
    largest_gradient: int


@dataclass(frozen=True)
class TimmEntry:
    """How timm loads an exported model.

    arguments: of its constructor. layers: names that timm's config asks for.
    """

    arguments: Mapping[str, object]
    layers: Mapping[str, str]


@dataclass(frozen=True)
class AttentionTokens:
    """The tokens that attend to each other in a model's attention layers.

    before: how many precede the patches: class token and registers. class_token: whether the first of
    them is a class token, and the one that the head is given.
    """

    before: int
    class_token: bool


@dataclass(frozen=True)
class MapLayer:
    """The layer whose output Grad-CAM weighs.

    name: of the submodule. as_map: brings its output to (B, width, *grid).
    """

    name: str
    as_map: Callable[[Tensor], Tensor]


class Family(Protocol):
    """Models that are built alike.

    `raypatch.models.families.counted.CountedFamily` has most parts for a family of one's own. A
    model takes normalised floats (B, 3, *spatial), of 2 or 3 spatial dimensions, and returns logits
    (B, outputs). name: in messages.
    """

    name: str

    def takes(self, model: str) -> bool:
        """Return whether a model of this name, as TrialConfig.model has it, is one of the family."""
        ...

    def check_fields(self, config: TrialConfig, *, dimensions: int) -> None:
        """Raise ValueError, with the way out, for a field that the
        family needs and lacks, or cannot take.
        """
        ...

    def construct(self, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
        """Construct a model with random weights on torch's default device;
        on `meta` it takes no memory.
        """
        ...

    def head_name(self, model: nn.Module) -> str:
        """Return the name of the submodule that makes logits of features:
        what a linear probe trains.
        """
        ...

    def draw_head(self, model: nn.Module) -> None:
        """Draw the head's weights anew, from torch's global random numbers."""
        ...

    def normalisation(self, config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation per channel that the
        weights expect of pixels from 0 to 1.
        """
        ...

    def fetch_weights(self, config: TrialConfig) -> None:
        """Have the weights that come with the model (weights: timm) in place.

        Raises ValueError if there are none.
        """
        ...

    def pretrained_state(self, config: TrialConfig) -> Mapping[str, Tensor]:
        """Return the state of the weights that come with the model, its head included.

        Raises ValueError.
        """
        ...

    def misfit(self, name: str, found: tuple[int, ...], model: nn.Module) -> str:
        """Return the shape that the tensor `name` of a weights file should have, in words;
        empty when it fits.

        found: its shape in the file. A tensor that `adapt_state` brings to size fits in other
        shapes than the model's.
        """
        ...

    def adapt_state(
        self,
        native: Mapping[str, Tensor],
        model: nn.Module,
        config: TrialConfig,
        *,
        dimensions: int,
    ) -> Mapping[str, Tensor]:
        """Return a state without its head as `model` can load it:
        kernels and positions brought to size.
        """
        ...

    def facts(self, model: nn.Module, config: TrialConfig, *, dimensions: int) -> ModelFacts:
        """Return what a model costs; it may lie on `meta`."""
        ...

    def activations(
        self,
        config: TrialConfig,
        facts: ModelFacts,
        precision: Precision,
    ) -> Activations:
        """Return what an image takes in memory while it passes the model."""
        ...

    def use_checkpointing(self, model: nn.Module) -> None:
        """Switch activation checkpointing on; only asked where
        `activations` says that there is any.
        """
        ...

    def pooled(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the features (B, width) that the head makes logits of."""
        ...

    def tokens(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return the features of an image's tokens, (B, tokens, width), depth and rows slowest, without
        class token and registers; None for a model without tokens.
        """
        ...

    def feature_map(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return the last features by place, (B, width, rows, columns), in 3D (B, width, depth, rows,
        columns); None for a model whose features have no grid.
        """
        ...

    def attention_tokens(self, model: nn.Module) -> AttentionTokens | None:
        """Return which tokens attend to each other, by torch's scaled_dot_product_attention; None for a
        model in which not all of an image's patches do.
        """
        ...

    def map_layer(self, model: nn.Module, *, dimensions: int) -> MapLayer | None:
        """Return the layer for Grad-CAM; None for a model without a map to weigh."""
        ...

    def timm_entry(self, config: TrialConfig) -> TimmEntry:
        """Return how timm loads an exported model; empty for one that timm does not know."""
        ...
