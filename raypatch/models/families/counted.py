"""A family to start from: all but the model itself, its costs counted on a pass without memory."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raypatch.config import TrialConfig
from raypatch.machine.runtime import Precision
from raypatch.models.families.protocol import Activations, TimmEntry
from raypatch.results import ModelFacts


class CountedFamily:
    """What most families share.

    Give `construct`, and `head_name` where the head is not called `head`.

    The model must be able to run on torch's `meta` device. Its weights
    are random or a file of the model's own state_dict(). An image's
    values in memory are counted in float32, and bfloat16 takes no more.
    """

    name = "own model"

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int, ModelFacts], int] = {}

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
        images = _made_images(config, dimensions)
        # A tensor on `meta` has a shape and no memory: the pass costs nothing, whatever the size.
        bare = model.to("meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            bare.eval()(images)
        total = counter.get_total_flops() / len(images)
        # Told apart, as attention alone grows with the square of the number of places.
        attention = 0.0
        for operation, flops in counter.get_flop_counts().get("Global", {}).items():
            if "attention" in str(operation):
                attention += flops / len(images)
        facts = ModelFacts(
            parameters=sum(parameter.numel() for parameter in bare.parameters()),
            tokens=None,
            gflops=1e-9 * total,
            gflops_without_attention=1e-9 * (total - attention),
        )
        # Kept for `activations`, which is asked later and has no model to run.
        self._kept[config.model, config.image_size, facts] = _kept_bytes(bare, images)
        return facts

    def activations(
        self,
        config: TrialConfig,
        facts: ModelFacts,
        precision: Precision,
    ) -> Activations:
        """Return what autograd was seen to keep of an image;
        a pass that keeps nothing is taken to need no more.

        facts: as `facts` gave them for this model.
        """
        kept = self._kept[config.model, config.image_size, facts]
        return Activations(kept=kept, checkpointed=None, passing=kept, largest_gradient=facts.parameters)

    def use_checkpointing(self, model: nn.Module) -> None:
        raise AssertionError("activations says that there is none")

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
        return given[0]

    def tokens(self, model: nn.Module, images: Tensor) -> Tensor | None:
        return None

    def feature_map(self, model: nn.Module, images: Tensor) -> Tensor | None:
        return None

    def timm_entry(self, config: TrialConfig) -> TimmEntry:
        return TimmEntry({}, {})


def _made_images(config: TrialConfig, dimensions: int) -> Tensor:
    # Two, since batch norm refuses to train on a single value per channel.
    return torch.zeros(2, 3, *(config.image_size,) * dimensions, device="meta")


def _kept_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes that one image leaves for its backward pass,
    and twice the largest of them for that pass to work in.
    """
    sizes: list[int] = [0]

    def note(tensor: Tensor) -> Tensor:
        # Parameters are saved for the backward pass too, but lie in memory once for all images.
        if not isinstance(tensor, nn.Parameter):
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.train()(images)
    return math.ceil((sum(sizes) + 2 * max(sizes)) / len(images))
