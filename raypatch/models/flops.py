"""What a model costs: parameters, tokens and arithmetic per image, by formula; counted by fvcore for comparison."""

import functools
import math
import warnings
from typing import Any

import torch
from timm.models import VisionTransformer
from torch import nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.data.source import describe
from raypatch.models.build import construct
from raypatch.models.weights import prefix_positions
from raypatch.results import ModelFacts


def model_facts(config: TrialConfig, *, dimensions: int, outputs: int) -> ModelFacts:
    """Return the cost of the config's model without its weights or memory for them. Raises ValueError as construct."""
    return _facts(config.model, config.image_size, config.patch_size, dimensions, outputs)


def trial_facts(config: TrialConfig, options: RunOptions) -> tuple[DatasetInfo, ModelFacts]:
    """What is known of a trial's dataset and of its model. Raises ValueError as describe and construct."""
    info = describe(config.dataset, data_dir=options.data_dir, files=options.files)
    return info, model_facts(config, dimensions=info.dimensions, outputs=len(info.classes))


@functools.cache
def _facts(model: str, image_size: int, patch_size: int, dimensions: int, outputs: int) -> ModelFacts:
    with torch.device("meta"):
        return count_cost(construct(model, image_size, patch_size, dimensions=dimensions, outputs=outputs))


def count_cost(model: VisionTransformer) -> ModelFacts:
    """Return parameters, tokens and 2 x multiply-accumulates per image, from the shapes of the model's layers.

    Counted are the matrix products: patch embedding, every linear layer for every token it sees, and attention's two
    products of each pair of tokens; norms, activations and additions are not, as in fvcore and most papers. For
    N tokens of width D in L blocks and P patches of V values that is L(12 N D^2 + 2 N^2 D) + P V D.
    """
    assert model.pos_embed is not None
    patches = model.pos_embed.shape[1] - prefix_positions(model)
    tokens = patches + model.num_prefix_tokens
    products = patches * model.patch_embed.proj.weight.numel() + _linear_weights(model.head)
    products += tokens * _linear_weights(model.blocks)
    attention = tokens**2 * sum(_products_per_pair(module) for module in model.blocks.modules())
    if model.attn_pool is not None:
        pool, pooled = model.attn_pool, tokens if model.pool_include_prefix else patches
        products += pool.latent_len * _linear_weights(pool) + (pooled - pool.latent_len) * pool.kv.weight.numel()
        attention += pool.latent_len * pooled * _products_per_pair(pool)
    return ModelFacts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=patches,
        gflops=2e-9 * (products + attention),
        gflops_without_attention=2e-9 * products,
    )


def _linear_weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _products_per_pair(module: nn.Module) -> int:
    """Multiply-accumulates of an attention layer per pair of tokens, in query x key and in map x value."""
    if not hasattr(module, "fused_attn"):
        return 0
    width = int(module.num_heads * module.head_dim)  # type: ignore[operator]
    # Differential attention has two maps, each of heads half as wide as the values that it weighs.
    return 6 * width if hasattr(module, "lambda_init") else 2 * width


def count_with_fvcore(model: nn.Module, image: tuple[int, ...]) -> float:
    """Return 2 x multiply-accumulates in 1e9 as fvcore counts them in one forward pass over an image (3, *spatial).

    fvcore knows no scaled_dot_product_attention, which is added here, and counts five per element of a layer norm,
    which is no product and left out. The model is run, so this takes its time and memory, unlike `count_cost`.
    """
    with warnings.catch_warnings():
        # fvcore stands on TorchScript, which newer versions of torch call deprecated at every use.
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, torch.zeros(1, *image))
        analysis.set_op_handle("aten::scaled_dot_product_attention", _count_attention)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        counts = analysis.by_operator()
    return 2e-9 * float(counts.total() - counts["layer_norm"])


def _count_attention(inputs: list[Any], _outputs: list[Any]) -> int:
    """Multiply-accumulates of attention by the traced query (B, heads, N, d), key (B, heads, M, d) and value."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    pairs = math.prod(query[:-1]) * key[-2]
    return int(pairs * (query[-1] + value[-1]))
