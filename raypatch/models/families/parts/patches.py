"""The patch embedding of images, as a convolution or as one matrix product."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchConvolution(nn.Conv2d):
    """A convolution whose stride is its kernel's edge p: (B, C, H, W) -> (B, width, H / p, W / p).

    Under autocast on a CPU it is one product over the patches, which oneDNN's convolution of bfloat16 is slower than.
    In float32 it stays a convolution, and so to the bit what it was.
    """

    def forward(self, images: Tensor) -> Tensor:
        edge = self.kernel_size[0]
        divides = images.shape[2] % edge == 0 and images.shape[3] % edge == 0
        rounds_on_cpu = images.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not rounds_on_cpu or not divides:
            return super().forward(images)
        patches = images.unflatten(3, (-1, edge)).unflatten(2, (-1, edge))  # (B, C, h, p, w, p)
        rows = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, C * p * p)
        return F.linear(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def as_patch_convolution(flat: nn.Conv2d) -> PatchConvolution:
    """The same convolution, with the same weights, as one that may be a product."""
    edge = flat.kernel_size[0]
    # On no device: it draws no weights, which would move all later draws.
    patches = PatchConvolution(
        flat.in_channels,
        flat.out_channels,
        kernel_size=edge,
        stride=edge,
        bias=flat.bias is not None,
        device="meta",
    )
    patches.weight, patches.bias = flat.weight, flat.bias
    return patches
