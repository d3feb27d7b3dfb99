"""One pass of a frozen backbone over images."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from raypatch.models.heads import FeatureKind, bare_model, features_of
from raypatch.models.prepared import PreparedModel, evaluation_batch


def extract_features(
    prepared: PreparedModel,
    images: Tensor,
    kind: FeatureKind,
    before_batch: Callable[[], object] = lambda: None,
) -> Iterator[Tensor]:
    """Yield the features of uint8 images (N, C, *spatial), batch by batch, float32 on the CPU.

    Large batches, in the precision of the prepared model, all of it in evaluation mode: no statistics
    move and nothing is random. before_batch: called before each; what it raises ends the pass.
    """
    body = bare_model(prepared.model)
    body.eval()
    size = evaluation_batch(prepared.facts.tokens, prepared.image_size ** (images.ndim - 2))
    for batch in images.split(size):
        before_batch()
        with torch.inference_mode():
            inputs = prepared.inputs(batch.to(prepared.device, non_blocking=True))
            cast = prepared.precision == "bfloat16"
            with torch.autocast(prepared.device.type, torch.bfloat16, enabled=cast):
                found = features_of(prepared.family, body, inputs, kind)
            features = found.float().cpu()
        yield features
