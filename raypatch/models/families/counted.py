"""A family to start from: all but the model itself, its costs counted on a pass without values."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raypatch.config import TrialConfig
from raypatch.machine.runtime import Precision
from raypatch.models.families.parts.measured import measure_activations
from raypatch.models.families.protocol import Activations, AttentionTokens, MapLayer, TimmEntry
from raypatch.results import ModelFacts

ATTENTION = ("attention", "bmm", "baddbmm")
"""Parts of the names of operations that multiply activations with each other."""


class CountedFamily:
    """What most families share.

    Give `construct`, and `head_name` where the head is not called `head`.

    The model must be able to run on torch's `meta` device. Its weights are random or a file of the
    model's own state_dict().
    """

    name = "own model"

    def __init__(self) -> None:
        self._counted: dict[tuple[str, int, ModelFacts], tuple[nn.Module, tuple[int, ...]]] = {}
        self._measured: dict[tuple[str, int, ModelFacts, Precision], Activations] = {}

    def takes(self, model: str) -> bool:
        """No name but its address: module:NAME."""
        return False

    def check_fields(self, config: TrialConfig, *, dimensions: int) -> None:
        """Refuse a patch size: a model without patches has none to vary."""
        if config.patch_size is not None:
            raise ValueError(
                f"model {config.model} has no patches: leave patch_size={config.patch_size} out",
            )

    def construct(self, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} must construct its model")

    def head_name(self, model: nn.Module) -> str:
        return "head"

    def draw_head(self, model: nn.Module) -> None:
        """Let each layer of the head draw its weights as torch does."""
        for layer in model.get_submodule(self.head_name(model)).modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()

    def normalisation(self, config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (0.5,) * 3, (0.5,) * 3

    def fetch_weights(self, config: TrialConfig) -> None:
        raise ValueError(
            f"model {config.model} comes without pretrained weights: use --weights random or --weights FILE"
        )

    def pretrained_state(self, config: TrialConfig) -> Mapping[str, Tensor]:
        self.fetch_weights(config)
        raise AssertionError("fetch_weights refuses")

    def misfit(self, name: str, found: tuple[int, ...], model: nn.Module) -> str:
        wanted = tuple(model.state_dict()[name].shape)
        return "" if found == wanted else str(wanted)

    def adapt_state(
        self,
        native: Mapping[str, Tensor],
        model: nn.Module,
        config: TrialConfig,
        *,
        dimensions: int,
    ) -> Mapping[str, Tensor]:
        return native

    def facts(self, model: nn.Module, config: TrialConfig, *, dimensions: int) -> ModelFacts:
        """Count as torch does: convolutions and matrix products, 2 x multiply-accumulates, 1e9."""
        # A tensor on `meta` has a shape and no memory: the pass costs nothing, whatever the size.
        bare = model.to("meta").eval()
        spatial = (config.image_size,) * dimensions
        image = torch.empty(1, 3, *spatial, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            bare(image)
        # Told apart, as attention alone grows with the square of the number of places. It is a
        # product of two activations in batches; a layer multiplies by its weights without.
        attention = 0
        for operation, flops in counter.get_flop_counts().get("Global", {}).items():
            if any(name in str(operation) for name in ATTENTION):
                attention += flops
        total = counter.get_total_flops()
        with torch.no_grad():
            tokens = self.tokens(bare, image)
        facts = ModelFacts(
            parameters=sum(parameter.numel() for parameter in bare.parameters()),
            tokens=None if tokens is None else tokens.shape[1],
            gflops=1e-9 * total,
            gflops_without_attention=1e-9 * (total - attention),
        )
        # Kept for `activations`, which is asked later and has no model to run.
        self._counted[config.model, config.image_size, facts] = (bare, spatial)
        return facts

    def activations(
        self,
        config: TrialConfig,
        facts: ModelFacts,
        precision: Precision,
    ) -> Activations:
        """Return what a pass forward and back was seen to take.

        facts: as `facts` gave them for this model.
        """
        key = (config.model, config.image_size, facts)
        if (*key, precision) not in self._measured:
            self._measured[*key, precision] = measure_activations(*self._counted[key], precision)
        return self._measured[*key, precision]

    def use_checkpointing(self, model: nn.Module) -> None:
        """Only models that have timm's method for it say in `activations` that they can."""
        model.set_grad_checkpointing(True)  # type: ignore[operator]  # torch has attributes be tensors or modules

    def pooled(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return what the head is given."""
        given: list[Tensor] = []
        head = model.get_submodule(self.head_name(model))
        # Whatever the model does before its head, that head's input is what it pooled.
        hook = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        try:
            model(images)
        finally:
            hook.remove()
        features = given[0]
        # A pool may leave them as a map of one place.
        one_place = features[0].numel() == features.shape[1]
        return features.flatten(1) if one_place else features

    def tokens(self, model: nn.Module, images: Tensor) -> Tensor | None:
        return None

    def feature_map(self, model: nn.Module, images: Tensor) -> Tensor | None:
        return None

    def attention_tokens(self, model: nn.Module) -> AttentionTokens | None:
        return None

    def map_layer(self, model: nn.Module, *, dimensions: int) -> MapLayer | None:
        return None

    def timm_entry(self, config: TrialConfig) -> TimmEntry:
        return TimmEntry({}, {})
