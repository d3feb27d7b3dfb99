"""What families share about heads and the features before them."""

from torch import Tensor, nn

from raypatch.models.families.protocol import MapLayer


class PointwiseHead(nn.Conv2d):
    """A classifier that is written as a convolution over one place: also takes features (B, width)."""

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 2:
            return super().forward(features[:, :, None, None]).flatten(1)
        return super().forward(features)


def replace_pointwise_head(model: nn.Module, name: str) -> None:
    """Let a head that is a convolution over one place also take features (B, width)."""
    head = model.get_submodule(name)
    if isinstance(head, nn.Conv2d):
        replacement = PointwiseHead(head.in_channels, head.out_channels, 1, bias=head.bias is not None)
        replacement.load_state_dict(head.state_dict(), assign=True)
        model.set_submodule(name, replacement)


def on_grid(tokens: Tensor, *, dimensions: int) -> Tensor | None:
    """Lay tokens (B, N, width) on their grid, (B, width, *grid); None where N is no square or cube."""
    count = tokens.shape[1]
    edge = round(count ** (1 / dimensions))
    if edge**dimensions != count:
        return None
    grid: Tensor = tokens.transpose(1, 2).unflatten(2, (edge,) * dimensions)
    return grid


def token_layer(model: nn.Module, name: str, before: int, dimensions: int) -> MapLayer | None:
    """Return the layer of that name, whose output are tokens, for Grad-CAM; None where there is none.

    before: how many of the tokens precede the patches.
    """

    def as_map(tokens: Tensor) -> Tensor:
        grid = on_grid(tokens[:, before:], dimensions=dimensions)
        assert grid is not None, "the patches of a square or cube"
        return grid

    return MapLayer(name, as_map) if name in dict(model.named_modules()) else None
