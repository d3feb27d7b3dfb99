"""A model ready to be used: on its device,
with the normalisation and the precision that belong to it.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.augment import augment, augment_masks, normalize, to_float
from raypatch.data.batches.resize import pad_centred, resize_images
from raypatch.data.catalog import DatasetInfo
from raypatch.machine.attention_kernels import use_flash_attention_3
from raypatch.machine.runtime import Precision, forbid_tf32, resolve_device, resolve_precision
from raypatch.models.build import BuiltModel, build_model
from raypatch.models.families import Family, find_family
from raypatch.models.flops import count_outputs, model_facts
from raypatch.models.heads import head_of
from raypatch.results import ModelFacts
from raypatch.trial_fields.data import Resize

logger = logging.getLogger(__name__)

# Enough to fill a device; more would only take memory.
TOKENS_PER_BATCH = 16_384
PIXELS_PER_BATCH = 2**22


def evaluation_batch(tokens: int | None, pixels: int) -> int:
    """Images of so many tokens and pixels in one evaluation batch: enough to fill a device.

    tokens: None for a model without. It follows from their size alone, so the same images give the
    same bits every time.
    """
    by_pixels = PIXELS_PER_BATCH // pixels
    # The class token is one more; at a small patch size the tokens, not the pixels, decide.
    by_tokens = by_pixels if tokens is None else TOKENS_PER_BATCH // (tokens + 1)
    return max(1, min(by_tokens, by_pixels))


@dataclass(frozen=True)
class PreparedModel:
    """A model with all that goes between it and an image's bytes.

    mean, std: (3,) on the device. image_size: edge of what the model sees. resize: how images of
    another size are brought to it.
    """

    model: nn.Module
    family: Family
    facts: ModelFacts
    mean: torch.Tensor
    std: torch.Tensor
    device: torch.device
    precision: Precision
    image_size: int
    resize: Resize = "bilinear"

    @property
    def head(self) -> nn.Module:
        """The part that makes logits of features."""
        return head_of(self.model, self.family)

    @property
    def stated_precision(self) -> Precision:
        """The precision that a result states: what the arithmetic of the backbone is done in."""
        return self.precision

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Bring floats from 0 to 1 (B, 1 or 3, *spatial)
        to what the weights expect: (B, 3, *spatial).
        """
        return normalize(images, self.mean, self.std)

    def inputs(self, images: torch.Tensor, parameters: torch.Tensor | None = None) -> torch.Tensor:
        """Bring images (B, C, *spatial), uint8 or floats 0..1, to the model's size and normalise them: (B, 3, *size).

        parameters: of their augmentation, None for none; it comes after resizing. Only where the
        border is to be the mean colour, zero after normalisation, the images are augmented in their
        own size and padded last.
        """
        resized = resize_images(images, self.image_size, self.resize)
        pixels = to_float(resized) if parameters is None else augment(resized, parameters)
        normalised = self.normalize(pixels)
        return pad_centred(normalised, self.image_size) if self.resize == "pad_mean" else normalised

    def augmented_shape(self, images: torch.Tensor) -> tuple[int, ...]:
        """The spatial shape in which images (N, C, *spatial) are augmented."""
        spatial = tuple(images.shape[2:])
        return spatial if self.resize == "pad_mean" else (self.image_size,) * len(spatial)

    def targets(self, labels: torch.Tensor, parameters: torch.Tensor | None) -> torch.Tensor:
        """Bring labels to what the loss is given: masks (B, H, W) to the model's size, and moved as their images are.

        Other labels stay. parameters: as of `inputs`.
        """
        if labels.ndim < 3:
            return labels
        masks = resize_images(labels.unsqueeze(1), self.image_size, "nearest")[:, 0]
        return masks if parameters is None else augment_masks(masks, parameters)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, outputs) float32 on the device of uint8 images
        (N, C, *spatial), batch by batch.

        Out of memory halves the batch; one image that does not fit raises torch.OutOfMemoryError.
        """
        return torch.cat(list(self.logits_of_batches(images)))

    def logits_of_batches(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Give the `logits` of one batch after the other."""
        self.model.eval()
        size = evaluation_batch(self.facts.tokens, self.image_size ** (images.ndim - 2))
        start = 0
        while start < len(images):
            try:
                logits = self._logits_of_batch(images[start : start + size])
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            else:
                start += size
                yield logits
                continue
            # Here, not in the handler: its traceback still holds the batch's tensors.
            torch.cuda.empty_cache()
            size //= 2
            logger.warning("out of memory: evaluating %d images at a time", size)

    @torch.inference_mode()
    def _logits_of_batch(self, images: torch.Tensor) -> torch.Tensor:
        inputs = self.inputs(images.to(self.device, non_blocking=True))
        cast = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cast):
            logits: torch.Tensor = self.model(inputs).float()
        return logits


def prepare_model(config: TrialConfig, info: DatasetInfo, options: RunOptions) -> PreparedModel:
    """Build a trial's model on its device, with the initial weights.

    Raises ValueError for wrong input.
    """
    device = resolve_device(options.device)
    outputs = count_outputs(config, info)
    facts = model_facts(config, dimensions=info.dimensions, outputs=outputs)
    built = build_model(config, dimensions=info.dimensions, outputs=outputs, files=options.files)
    return place_model(config, built, facts, device, resolve_precision(config.precision, device))


def place_model(
    config: TrialConfig,
    built: BuiltModel,
    facts: ModelFacts,
    device: torch.device,
    precision: Precision,
) -> PreparedModel:
    """Bring a built model to a device."""
    if precision == "float32":
        forbid_tf32()
    elif device.type == "cuda":
        use_flash_attention_3(device)
    return PreparedModel(
        model=built.model.to(device),
        family=find_family(config.model),
        facts=facts,
        mean=torch.tensor(built.mean, device=device),
        std=torch.tensor(built.std, device=device),
        device=device,
        precision=precision,
        image_size=config.image_size,
        resize=config.resize,
    )
