"""The head of a segmentation: DeepLabV3's, on the grid of a transformer's patches or the map of a CNN."""

from torch import Tensor, nn
from torch.nn import functional as F

RATE_SHARES = (6 / 32, 12 / 32, 18 / 32)
"""Atrous rates in shares of the map's edge: 6, 12, 18 at stride 16 of 512 pixels, twice that at stride 8, as
DeepLabV3 has them (Chen et al. 2017). So they reach as far in an image at every stride and size.
"""


class PatientBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes one value per channel as well, by what it has seen so far.

    The pooled branch of the head has one value per image, and a batch may be of one image.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features.numel() == features.shape[1]:
            return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(features)


class MaskHead(nn.Module):
    """A map (B, width, rows, columns) -> torchvision's DeepLabHead -> logits (B, outputs, size, size), bilinear.

    edge: of the map, which the atrous rates follow from.
    """

    def __init__(self, width: int, edge: int, outputs: int, size: int) -> None:
        super().__init__()
        # Here: it loads all of torchvision's models.
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead

        self.size = size
        self.rates = atrous_rates(edge)
        self.layers = DeepLabHead(width, outputs, self.rates)
        for name, layer in list(self.layers.named_modules()):
            if isinstance(layer, nn.BatchNorm2d):
                self.layers.set_submodule(name, PatientBatchNorm(layer.num_features))

    def forward(self, features: Tensor) -> Tensor:
        logits = self.layers(features)
        return F.interpolate(logits, size=(self.size, self.size), mode="bilinear", align_corners=False)


def atrous_rates(edge: int) -> tuple[int, int, int]:
    """Return the rates of the three atrous convolutions on a map of this edge, rising, 1 at least."""
    first, second, third = (max(1, round(share * edge)) for share in RATE_SHARES)
    return first, second, third


def loss_bytes(outputs: int, size: int) -> int:
    """Bytes of an image that a loss of masks works in: logits, probabilities, truth and their gradients, float32."""
    return 4 * 5 * outputs * size**2


def is_mask_head(head: nn.Module) -> bool:
    """Whether a head makes logits of pixels."""
    return isinstance(head, MaskHead)
