"""A network of convolutions over images made one over volumes (I3D, Carreira & Zisserman 2017, section 2.4).

Kernels and pools get a depth as large as their edge, strides too. Beyond the first and last slice the
volume goes on as those are, where in plane it is zero: so a volume that is constant along depth stays
constant in every layer, and its logits are those of its slice.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.models import DenseNet, EfficientNet, MobileNetV3, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from raypatch.models.resample import inflate_kernel

INFLATABLE = (ResNet, EfficientNet, MobileNetV3, DenseNet)
"""The classes of timm whose own code does not ask how many dimensions there are."""

OVER_ALL_PLACES = (nn.BatchNorm2d, BatchNormAct2d, SelectAdaptivePool2d)
"""Layers that treat all places alike: whether these lie in rows or in slices does not matter."""

CHANNEL_GATE = "se"
"""How timm's blocks call their squeeze-and-excitation, which pools over all places."""


def inflate(model: nn.Module) -> None:
    """Make a network of convolutions over images one over cubes, in place, its weights drawn at random.

    The names of its weights stay. Raises ValueError for a layer that has no counterpart over volumes.
    """
    for name, child in model.named_children():
        if name == CHANNEL_GATE or isinstance(child, OVER_ALL_PLACES):
            child.register_forward_pre_hook(_slices_to_rows)
            child.register_forward_hook(_rows_to_slices)
        elif isinstance(child, nn.Conv2d):
            setattr(model, name, _DeepConvolution(child))
        elif isinstance(child, nn.MaxPool2d):
            pool = nn.MaxPool3d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
            setattr(model, name, pool)
        elif isinstance(child, nn.AvgPool2d) and not child.padding:
            setattr(model, name, _deep_average(child))
        elif "2d" in type(child).__name__:
            raise ValueError(f"its {type(child).__name__} has no counterpart over volumes")
        else:
            inflate(child)


def inflate_state(
    native: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    inflation: Literal["repeat", "centre"],
) -> dict[str, Tensor]:
    """Give each kernel over images its depth, where the model wants one over volumes."""
    state = {}
    for name, tensor in native.items():
        deeper = wanted[name].ndim == tensor.ndim + 1
        state[name] = inflate_kernel(tensor, inflation) if deeper else tensor
    return state


def _deep_average(flat: nn.AvgPool2d) -> nn.AvgPool3d:
    edge, stride = flat.kernel_size, flat.stride
    if isinstance(edge, tuple) or isinstance(stride, tuple):
        raise ValueError(f"its pool {flat} is no square one")
    return nn.AvgPool3d(edge, stride, ceil_mode=flat.ceil_mode, count_include_pad=False)


class _DeepConvolution(nn.Conv3d):
    """A convolution over volumes after one over images: its stride, padding in plane and groups."""

    def __init__(self, flat: nn.Conv2d) -> None:
        edge = flat.kernel_size[0]
        if {*flat.kernel_size} != {edge} or {*flat.stride} != {flat.stride[0]} or isinstance(flat.padding, str):
            raise ValueError(f"its convolution {flat} is no square one")
        super().__init__(
            flat.in_channels,
            flat.out_channels,
            edge,
            stride=flat.stride[0],
            dilation=flat.dilation[0],
            groups=flat.groups,
            bias=flat.bias is not None,
            device=flat.weight.device,
        )
        self.edge_padding = flat.padding[0]
        # TensorFlow's: as much as makes the number of places the size by the stride, rounded up.
        self.same = isinstance(flat, Conv2dSame)
        # With as many more inputs as the kernel is deep, the outputs keep their spread.
        spread = flat.weight.detach().std() if flat.weight.numel() > 1 else flat.weight.detach().abs()
        with torch.no_grad():
            self.weight.normal_().mul_(spread / math.sqrt(edge))
            if self.bias is not None and flat.bias is not None:
                self.bias.copy_(flat.bias)

    def forward(self, volume: Tensor) -> Tensor:
        before, after = self._padding_of(volume.shape[-1])
        in_plane = F.pad(volume, (before, after, before, after)) if before + after else volume
        # By joining, not by torch's replication padding: its gradient on a GPU is not deterministic.
        first = in_plane[:, :, :1].expand(-1, -1, before, -1, -1)
        last = in_plane[:, :, -1:].expand(-1, -1, after, -1, -1)
        padded = torch.cat([first, in_plane, last], dim=2) if before + after else in_plane
        return F.conv3d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _padding_of(self, size: int) -> tuple[int, int]:
        """Places before and after each edge of so many."""
        if not self.same:
            return self.edge_padding, self.edge_padding
        stride = self.stride[0]
        reach = (self.kernel_size[0] - 1) * self.dilation[0] + 1
        total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
        return total // 2, total - total // 2


def _slices_to_rows(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return inputs[0].flatten(2, 3)  # (B, C, D * H, W)


def _rows_to_slices(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if output.shape[2:] != inputs[0].shape[2:]:
        # It has pooled: no place is left.
        return output
    edge = output.shape[-1]
    # The volumes are cubes.
    slices: Tensor = output.unflatten(2, (edge, edge))
    return slices
