"""One pass of a frozen backbone over images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raypatch.features.frozen import fold_batch_norm
from raypatch.models.heads import FeatureKind, bare_model, features_of
from raypatch.models.prepared import PreparedModel, evaluation_batch

CPU_PART = 16
"""A CPU takes so much smaller batches than a GPU: what passes between layers is to stay in its caches."""


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone that only passes images, and all that goes before it."""

    prepared: PreparedModel
    body: nn.Module
    kind: FeatureKind

    def batch_size(self, images: Tensor) -> int:
        """Images (N, C, *spatial) of one batch: enough to fill the device."""
        size = evaluation_batch(self.prepared.facts.tokens, self.prepared.image_size ** (images.ndim - 2))
        return max(1, size // CPU_PART) if self.prepared.device.type == "cpu" else size

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Features float32, on the device, of one batch of uint8 images (B, C, *spatial), in the model's precision."""
        prepared = self.prepared
        inputs = prepared.inputs(images.to(prepared.device, non_blocking=True))
        if self.body is not bare_model(prepared.model) and inputs.ndim == 4:
            # As the folded convolutions lie.
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(prepared.device.type, torch.bfloat16, enabled=prepared.precision == "bfloat16"):
            found = features_of(prepared.family, self.body, inputs, self.kind)
        return found.float()


def freeze(prepared: PreparedModel, images: Tensor, kind: FeatureKind) -> FrozenBackbone:
    """Make a model ready for a pass over images (N, C, *spatial); it may be used for nothing else then."""
    body = bare_model(prepared.model).requires_grad_(False).eval()
    some = prepared.inputs(images[:2].to(prepared.device))
    return FrozenBackbone(prepared, fold_batch_norm(prepared.family, body, some, kind), kind)


def extract_features(
    prepared: PreparedModel,
    images: Tensor,
    kind: FeatureKind,
    before_batch: Callable[[], object] = lambda: None,
) -> Iterator[Tensor]:
    """Yield the features of uint8 images (N, C, *spatial), batch by batch, float32 on the CPU.

    All of it in evaluation mode: no statistics move and nothing is random. before_batch: called before
    each; what it raises ends the pass.
    """
    frozen = freeze(prepared, images, kind)
    for batch in images.split(frozen.batch_size(images)):
        before_batch()
        yield frozen.features(batch).cpu()
