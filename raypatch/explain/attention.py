"""What a model's attention layers attend to, seen while the model computes as always.

torch calls `scaled_dot_product_attention`, which returns no attention; a function mode sees its
queries and keys on the way. So nothing is switched off in the model and nothing must be restored,
and of an image with many tokens a block of rows is computed at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Attention:
    """One attention layer on a batch.

    query, key: (B, heads, N, width). scale: of their products. bias: added to these, broadcast to
    (B, heads, N, N); None for none.
    """

    query: Tensor
    key: Tensor
    scale: float
    bias: Tensor | None = None

    @property
    def tokens(self) -> int:
        """How many tokens attend, N."""
        return self.query.shape[-2]

    def rows(self, start: int, stop: int) -> Tensor:
        """Return how much the tokens from `start` to before `stop` attend to each: (B, heads, stop - start, N),
        float32; each row sums to 1.
        """
        query = self.query[..., start:stop, :].float() * self.scale
        products = query @ self.key.float().transpose(-2, -1)
        if self.bias is not None:
            # A bias may be the same for all queries.
            products += self.bias if self.bias.shape[-2] == 1 else self.bias[..., start:stop, :]
        return products.softmax(dim=-1)


class WatchAttention(TorchFunctionMode):
    """Within it, `see` is given each attention layer in which so many tokens attend to each other."""

    def __init__(self, tokens: int, see: Callable[[Attention], object]) -> None:
        super().__init__()
        self.tokens = tokens
        self.see = see

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            attention = _attention_of(*args, **(kwargs or {}))
            # A pool with one query, or windows of a part of the image, are something else.
            if attention.tokens == attention.key.shape[-2] == self.tokens:
                self.see(attention)
        return func(*args, **(kwargs or {}))


def _attention_of(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None, **rest: Any
) -> Attention:
    """The arguments of scaled_dot_product_attention; its default scale is 1 / √width."""
    return Attention(query.detach(), key.detach(), scale or query.shape[-1] ** -0.5, attn_mask)


def patch_places(tokens: int, dimensions: int) -> Tensor:
    """Return where on their grid so many patches lie, (tokens, dimensions), the last axis fastest.

    Raises ValueError where they are no square or cube.
    """
    edge = grid_edge(tokens, dimensions)
    axes = [torch.arange(edge, dtype=torch.float32)] * dimensions
    return torch.cartesian_prod(*axes)


def grid_edge(tokens: int, dimensions: int) -> int:
    """Return the edge of the grid of so many patches. Raises ValueError where they are no square or cube."""
    edge: int = round(tokens ** (1 / dimensions))
    if edge**dimensions != tokens:
        raise ValueError(f"{tokens} patches are no {'square' if dimensions == 2 else 'cube'}: their places are unknown")
    return edge
