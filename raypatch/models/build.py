"""Any timm Vision Transformer over images or volumes at any patch size, with pretrained or random weights."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import VisionTransformer, is_model_in_modules
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.resample import VolumeEmbed, inflate_kernel, resample_kernel, resample_positions
from raypatch.models.weights import (
    KERNEL,
    POSITIONS,
    ensure_weights,
    normalisation,
    prefix_positions,
    read_native_state,
)

WORKING_MODULES = ("vision_transformer", "deit")
"""The modules of timm whose models may be plain Vision Transformers."""

EXAMPLES = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "deit_small_patch16_224")


@dataclass(frozen=True)
class BuiltModel:
    """A model and the normalisation that its weights expect.

    model: normalised floats (B, 3, *spatial) -> logits (B, outputs). mean, std: per channel, of pixels from 0 to 1.
    """

    model: VisionTransformer
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_model(config: TrialConfig, *, dimensions: int, outputs: int, files: Mapping[str, Path]) -> BuiltModel:
    """Build the model of a trial on the CPU; with method=linear_probe all but its head is frozen.

    Pretrained kernel and positions are resampled from their native size (see patch_embed.py), the rest is loaded as it
    is, the head drawn anew from the seed, the same for every patch size. Random weights are timm's initialisation at
    the target size. The global random state stays as it was. files: where the own files that configs name lie.

    Raises ValueError for an unknown or unfit model and for weights that cannot be had or do not fit.
    """
    architecture = config.model, config.image_size, config.patch_size
    if config.weights == "random":
        with _seeded(config.seed):
            model = construct(*architecture, dimensions=dimensions, outputs=outputs)
    else:
        with torch.device("meta"):
            model = construct(*architecture, dimensions=dimensions, outputs=outputs)
        native = read_native_state(config, model, files)
        model.to_empty(device="cpu")
        with _seeded(config.seed):
            init_weights_vit_timm(model.head)
        head = {f"head.{key}": value for key, value in model.head.state_dict().items()}
        model.load_state_dict({**adapt_state(native, model, config, dimensions=dimensions), **head})
    if config.method == "linear_probe":
        freeze_backbone(model)
    return BuiltModel(model, *normalisation(config))


def check_model(config: TrialConfig, *, dimensions: int, outputs: int, files: Mapping[str, Path]) -> None:
    """See that `build_model` will succeed: an own file by its header alone, hub weights by having them downloaded.

    Raises ValueError as build_model does.
    """
    with torch.device("meta"):
        model = construct(config.model, config.image_size, config.patch_size, dimensions=dimensions, outputs=outputs)
    if config.weights != "random":
        ensure_weights(config, model, files)


def construct(name: str, image_size: int, patch_size: int, *, dimensions: int, outputs: int) -> VisionTransformer:
    """Construct an architecture on torch's current default device; on `meta` it takes no memory.

    In 2D the model is timm's own. In 3D its blocks and head stay, patch embedding and positions are those of a volume.
    Raises ValueError for an unknown name and for a model that is no plain Vision Transformer.
    """
    _check_name(name)
    model = timm.create_model(
        name, img_size=image_size, patch_size=patch_size, num_classes=outputs, in_chans=3, dynamic_img_size=False
    )
    if type(model) is not VisionTransformer or type(model.patch_embed) is not PatchEmbed or model.pos_embed is None:
        raise _unfit(name)
    for module in model.modules():
        # scaled_dot_product_attention always, whatever $TIMM_FUSED_ATTN says
        if hasattr(module, "fused_attn"):
            module.fused_attn = True  # type: ignore[assignment]
    if dimensions == 3:
        flat = model.patch_embed
        model.patch_embed = VolumeEmbed(3, model.embed_dim, patch_size, bias=flat.proj.bias is not None, norm=flat.norm)
        tokens = prefix_positions(model) + (image_size // patch_size) ** 3
        model.pos_embed = nn.Parameter(torch.empty(1, tokens, model.embed_dim))
        nn.init.trunc_normal_(model.pos_embed, std=0.02)
    return model


def adapt_state(
    native: Mapping[str, Tensor], model: VisionTransformer, config: TrialConfig, *, dimensions: int
) -> dict[str, Tensor]:
    """Return a native state with kernel and positions resampled to the patch size and grid of `config`."""
    grid = (config.image_size // config.patch_size,) * dimensions
    kernel = resample_kernel(native[KERNEL], config.patch_size)
    if dimensions == 3:
        kernel = inflate_kernel(kernel, config.inflation)
    positions = resample_positions(native[POSITIONS], grid, prefix=prefix_positions(model))
    return {**native, KERNEL: kernel, POSITIONS: positions}


def freeze_backbone(model: VisionTransformer) -> None:
    """Leave only the classification head trainable."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)


def set_training_mode(model: VisionTransformer, config: TrialConfig) -> None:
    """Training mode before an epoch's steps; a frozen backbone stays in evaluation mode, where nothing is random."""
    model.train(config.method == "finetune")
    model.head.train()


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        fitting = timm.list_models(["vit_*", "deit*"])
        near = [model for model in fitting if model.startswith(architecture)][:3]
        near = near or difflib.get_close_matches(architecture, fitting, n=3)
        near = near or difflib.get_close_matches(architecture, known, n=3) or list(EXAMPLES)
        raise ValueError(f"unknown model {name!r}: did you mean {', '.join(near)}?")
    if not is_model_in_modules(architecture, WORKING_MODULES):
        raise _unfit(name)
    tagged = timm.list_models(f"{architecture}.*", include_tags=True)
    if tag and name not in tagged:
        raise ValueError(f"model {architecture} has no weights tagged {tag!r}; use one of {', '.join(tagged)}")


def _unfit(name: str) -> ValueError:
    return ValueError(
        f"model {name} cannot take any patch size: that needs a plain Vision Transformer with one convolution as patch"
        " embedding, learned absolute positions and one head. timm's vit_* and deit* are such, but for hybrid,"
        f" relative-position, rotary and distilled ones: {', '.join(EXAMPLES)} ..."
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside, and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        yield
