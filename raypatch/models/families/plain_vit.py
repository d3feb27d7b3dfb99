"""timm's plain Vision Transformers over images or volumes at any patch size.

One convolution as patch embedding, learned absolute positions, one
head. Pretrained kernel and positions are resampled from their native
size (see models/resample.py); the rest is loaded as it is.
"""

import functools
import math
from collections.abc import Mapping

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import VisionTransformer, is_model_in_modules
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.machine.runtime import Precision
from raypatch.models import hub
from raypatch.models.families.parts.heads import on_grid, token_layer
from raypatch.models.families.parts.patches import as_patch_convolution
from raypatch.models.families.plain_vit_cost import count_cost, prefix_positions, vit_activations
from raypatch.models.families.protocol import Activations, AttentionTokens, MapLayer, TimmEntry
from raypatch.models.families.timm_names import architecture_of, check_tag, timm_normalisation
from raypatch.models.resample import (
    VolumeEmbed,
    inflate_kernel,
    resample_kernel,
    resample_positions,
    resize_positions,
)
from raypatch.results import ModelFacts

WORKING_MODULES = ("vision_transformer", "deit")
"""The modules of timm whose models may be plain Vision Transformers."""

KERNEL, POSITIONS = "patch_embed.proj.weight", "pos_embed"


class PlainViT:
    """The family of vit_* and deit*."""

    name = "plain Vision Transformer"

    def takes(self, model: str) -> bool:
        architecture = architecture_of(model)
        if not timm.is_model(architecture) or not is_model_in_modules(architecture, WORKING_MODULES):
            return False
        return _is_plain(architecture)

    def check_fields(self, config: TrialConfig, *, dimensions: int) -> None:
        """Raise ValueError without a patch size, and for a tag that timm does not know."""
        if config.patch_size is None:
            edge = config.image_size
            fitting = ", ".join(str(size) for size in range(edge, 0, -1) if edge % size == 0)
            raise ValueError(
                f"model {config.model} is a Vision Transformer and needs a patch_size;"
                f" image_size={edge} allows {fitting}"
            )
        check_tag(config.model)

    def construct(self, config: TrialConfig, *, dimensions: int, outputs: int) -> VisionTransformer:
        """Construct the architecture; in 2D it is timm's own model,
        in 3D embedding and positions are of a volume.
        """
        size, patch = config.image_size, config.patch_size
        assert patch is not None, "see check_fields"
        model = timm.create_model(
            config.model,
            img_size=size,
            patch_size=patch,
            num_classes=outputs,
            in_chans=3,
            dynamic_img_size=False,
        )
        assert isinstance(model, VisionTransformer), "see takes"
        for module in model.modules():
            # scaled_dot_product_attention always, whatever $TIMM_FUSED_ATTN says: memory counts on it.
            if hasattr(module, "fused_attn"):
                # To a type checker attributes of modules are tensors or modules.
                module.fused_attn = True  # type: ignore[assignment]
        if dimensions == 2:
            model.patch_embed.proj = as_patch_convolution(model.patch_embed.proj)
        else:
            flat = model.patch_embed
            has_bias = flat.proj.bias is not None
            model.patch_embed = VolumeEmbed(3, model.embed_dim, patch, bias=has_bias, norm=flat.norm)
            tokens = prefix_positions(model) + (size // patch) ** 3
            model.pos_embed = nn.Parameter(torch.empty(1, tokens, model.embed_dim))
            # As timm draws those of images.
            nn.init.trunc_normal_(model.pos_embed, std=0.02)
        return model

    def head_name(self, model: nn.Module) -> str:
        return "head"

    def draw_head(self, model: nn.Module) -> None:
        """Draw the head as timm does: the same for every patch size."""
        init_weights_vit_timm(_as_vit(model).head)

    def normalisation(self, config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Those of timm's weights under the model's name and tag, also for an own file;
        0.5 and 0.5 for random ones.
        """
        return timm_normalisation(config)

    def fetch_weights(self, config: TrialConfig) -> None:
        hub.fetch_hub_state(config.model)

    def pretrained_state(self, config: TrialConfig) -> Mapping[str, Tensor]:
        return hub.read_hub_state(config.model)

    def misfit(self, name: str, found: tuple[int, ...], model: nn.Module) -> str:
        """Any kernel and any square grid of positions fits; those of volumes at their own size alone."""
        wanted = tuple(model.state_dict()[name].shape)
        if found == wanted:
            return ""
        if name == KERNEL:
            fits = len(found) == 4 and found[:2] == wanted[:2]
            return "" if fits else f"({wanted[0]}, {wanted[1]}, any, any)"
        if name == POSITIONS:
            prefix = prefix_positions(_as_vit(model))
            # Only a square grid can be told from its count: 196 positions are 14 x 14.
            patches = found[1] - prefix if len(found) == 3 else 0
            fits = patches > 0 and math.isqrt(patches) ** 2 == patches and found[::2] == wanted[::2]
            return "" if fits else f"(1, {prefix} + a square, {wanted[2]})"
        return str(wanted)

    def adapt_state(
        self,
        native: Mapping[str, Tensor],
        model: nn.Module,
        config: TrialConfig,
        *,
        dimensions: int,
    ) -> Mapping[str, Tensor]:
        assert config.patch_size is not None, "see check_fields"
        if native[KERNEL].ndim == 5:
            # Pretrained on volumes, at this size: see misfit.
            return native
        grid = (config.image_size // config.patch_size,) * dimensions
        kernel = resample_kernel(native[KERNEL], config.patch_size)
        if dimensions == 3:
            kernel = inflate_kernel(kernel, config.inflation)
        prefix = prefix_positions(_as_vit(model))
        positions = resample_positions(native[POSITIONS], grid, prefix=prefix)
        return {**native, KERNEL: kernel, POSITIONS: positions}

    def tensors_at_size(self, model: nn.Module, spatial: tuple[int, ...]) -> Mapping[str, Tensor]:
        """Return the positions resampled to images of another size."""
        vit = _as_vit(model)
        # timm's embedding refuses other sizes than its own unless told so.
        vit.patch_embed.strict_img_size = False
        patch = vit.patch_embed.proj.kernel_size[0]
        grid = tuple(edge // patch for edge in spatial)
        assert vit.pos_embed is not None, "see _is_plain"
        return {POSITIONS: resize_positions(vit.pos_embed, grid, prefix=prefix_positions(vit))}

    def facts(self, model: nn.Module, config: TrialConfig, *, dimensions: int) -> ModelFacts:
        return count_cost(_as_vit(model))

    def activations(
        self,
        config: TrialConfig,
        facts: ModelFacts,
        precision: Precision,
    ) -> Activations:
        width, depth = _width_and_depth(config.model)
        return vit_activations(facts, precision, width=width, depth=depth)

    def use_checkpointing(self, model: nn.Module) -> None:
        _as_vit(model).set_grad_checkpointing(True)

    def pooled(self, model: nn.Module, images: Tensor) -> Tensor:
        vit = _as_vit(model)
        features: Tensor = vit.forward_head(vit.forward_features(images), pre_logits=True)
        return features

    def tokens(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return the patches' features after the last block, without the class token."""
        vit = _as_vit(model)
        features: Tensor = vit.forward_features(images)
        return features[:, vit.num_prefix_tokens :]

    def feature_map(self, model: nn.Module, images: Tensor) -> Tensor | None:
        """Return the patches' features on their grid."""
        tokens = self.tokens(model, images)
        assert tokens is not None
        return on_grid(tokens, dimensions=images.ndim - 2)

    def attention_tokens(self, model: nn.Module) -> AttentionTokens | None:
        vit = _as_vit(model)
        return AttentionTokens(vit.num_prefix_tokens, vit.has_class_token and vit.global_pool == "token")

    def map_layer(self, model: nn.Module, *, dimensions: int) -> MapLayer | None:
        """The last block's first norm: where a head reads the class token alone, patches have no gradient later."""
        vit = _as_vit(model)
        return token_layer(vit, f"blocks.{len(vit.blocks) - 1}.norm1", vit.num_prefix_tokens, dimensions)

    def timm_entry(self, config: TrialConfig) -> TimmEntry:
        return TimmEntry(
            arguments={"img_size": config.image_size, "patch_size": config.patch_size},
            layers={"first_conv": "patch_embed.proj", "classifier": "head"},
        )


def _as_vit(model: nn.Module) -> VisionTransformer:
    assert isinstance(model, VisionTransformer), "construct made it"
    return model


@functools.cache
def _is_plain(architecture: str) -> bool:
    """Whether the architecture has one convolution as patch embedding, and learned positions."""
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=2)
    # By type, not isinstance: a subclass such as a distilled one has parts that are not handled.
    if type(model) is not VisionTransformer or type(model.patch_embed) is not PatchEmbed:
        return False
    return model.pos_embed is not None


@functools.cache
def _width_and_depth(model: str) -> tuple[int, int]:
    with torch.device("meta"):
        built = _as_vit(timm.create_model(model, num_classes=2))
    return built.embed_dim, len(built.blocks)
