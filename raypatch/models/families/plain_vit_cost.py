"""What a plain Vision Transformer costs by formula: parameters, arithmetic, activations."""

from timm.models import VisionTransformer
from torch import nn

from raypatch.machine.runtime import Precision
from raypatch.models.families.protocol import Activations
from raypatch.results import ModelFacts


def count_cost(model: VisionTransformer) -> ModelFacts:
    """Return parameters, tokens and 2 x multiply-accumulates per image,
    from the shapes of the model's layers.

    Counted are the matrix products: patch embedding, every linear layer for every token it sees,
    and attention's two products of each pair of tokens; norms, activations and additions are not,
    as in fvcore and most papers. For N tokens of width D in L blocks and P patches of V values that
    is L(12 N D^2 + 2 N^2 D) + P V D.
    """
    assert model.pos_embed is not None
    patches = model.pos_embed.shape[1] - prefix_positions(model)
    tokens = patches + model.num_prefix_tokens
    # A convolution whose stride is its size multiplies each of its weights once per patch.
    products = patches * model.patch_embed.proj.weight.numel() + _linear_weights(model.head)
    products += tokens * _linear_weights(model.blocks)
    attention = tokens**2 * sum(_products_per_pair(module) for module in model.blocks.modules())
    if model.attn_pool is not None:
        pool = model.attn_pool
        pooled = tokens if model.pool_include_prefix else patches
        # All its layers see the latent token; keys and values are made of every pooled token.
        products += pool.latent_len * _linear_weights(pool)
        products += (pooled - pool.latent_len) * pool.kv.weight.numel()
        attention += pool.latent_len * pooled * _products_per_pair(pool)
    return ModelFacts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=patches,
        gflops=2e-9 * (products + attention),
        gflops_without_attention=2e-9 * products,
    )


def prefix_positions(model: VisionTransformer) -> int:
    """How many learned positions belong to the class token and registers,
    before those of the patches.
    """
    return 0 if model.no_embed_class else model.num_prefix_tokens


def vit_activations(
    facts: ModelFacts,
    precision: Precision,
    *,
    width: int,
    depth: int,
) -> Activations:
    """Return what an image leaves in a Vision Transformer with scaled_dot_product_attention.

    Per block, in units of tokens x width: the two norms keep their float32 inputs (2 x 4 bytes); in
    the products' precision are kept the inputs of the four linear layers (1, 1, 1, 4), of which
    attention's output is one, query, key and value (3) and the input of GELU (4): 14 elements.
    Checkpointing keeps one float32 input per block and recomputes one block at a time. The backward
    pass works in two float32 units and the widest tensor. A pass that keeps nothing has four
    float32 units, the widest tensor twice.
    """
    assert facts.tokens is not None
    # The class token is one more.
    unit = (facts.tokens + 1) * width
    element = 2 if precision == "bfloat16" else 4
    block = unit * (2 * 4 + 14 * element)
    working = unit * (2 * 4 + 4 * element)
    # Of a block's gradients the widest layer's comes at once, 4 x width^2; or all that is in no block.
    largest = max(4 * width**2, facts.parameters - 12 * depth * width**2)
    return Activations(
        kept=working + depth * block,
        checkpointed=working + block + depth * unit * 4,
        passing=unit * (4 * 4 + 8 * element),
        largest_gradient=largest,
    )


def _linear_weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _products_per_pair(module: nn.Module) -> int:
    """Multiply-accumulates of an attention layer per pair of tokens,
    in query x key and in map x value.
    """
    if not hasattr(module, "fused_attn"):
        return 0
    width = int(module.num_heads * module.head_dim)  # type: ignore[operator]  # torch has attributes be tensors or modules
    # Differential attention has two maps, each of heads half as wide as the values that it weighs.
    return 6 * width if hasattr(module, "lambda_init") else 2 * width
