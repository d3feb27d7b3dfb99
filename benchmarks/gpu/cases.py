"""A model with batches of made images on the device, and its training step."""

import copy
import gc
from dataclasses import dataclass

import torch
from report import Report
from torch import nn

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import draw_parameters
from raypatch.machine.runtime import Precision, resolve_precision
from raypatch.models.build import build_model
from raypatch.models.flops import model_facts
from raypatch.models.prepared import PreparedModel, place_model
from raypatch.tasks import find_task
from raypatch.training.optim import make_optimizer
from raypatch.training.steps.recorded import Batch
from raypatch.training.steps.step import TrainingStep

CLASSES = 2


@dataclass
class Case:
    """A model at a patch size, and batches on the device."""

    config: TrialConfig
    prepared: PreparedModel
    batches: list[Batch]

    def step(
        self, *, recorded: bool | None = None, compiled: bool = False, micro_batch: int | None = None
    ) -> TrainingStep:
        """The step of this case's model."""
        prepared = self.prepared
        prepared.model.train()
        optimizer = make_optimizer(prepared.model, self.config, prepared.head)
        loss = find_task("multiclass").loss
        micro_batch = micro_batch or self.config.batch_size
        how = {"fixed_buffers": recorded, "compiled": compiled}
        return TrainingStep(prepared, optimizer, loss, self.config, micro_batch=micro_batch, **how)

    def twin(self, *, precision: Precision | None = None) -> "Case":
        """The same weights once more, perhaps in another precision."""
        values = vars(self.prepared) | {"model": copy.deepcopy(self.prepared.model)}
        if precision is not None:
            values["precision"] = precision
        return Case(self.config, PreparedModel(**values), self.batches)


def make_case(report: Report, dimensions: int, patch: int, *, batches: int = 8, **fields: object) -> Case:
    """A ViT-S at a patch size, in the precision of the device; tiny: the smallest ViT of timm on 8 pixels."""
    size = 8 if report.tiny else 28
    model = "test_vit" if report.tiny else "vit_small_patch16_224"
    values = {"dataset": f"phantom{dimensions}d", "image_size": size, "patch_size": patch, "model": model}
    config = TrialConfig.model_validate({"weights": "random", "batch_size": 8, "lr": 1e-4, **values, **fields})
    facts = model_facts(config, dimensions=dimensions, outputs=CLASSES)
    built = build_model(config, dimensions=dimensions, outputs=CLASSES, files={})
    precision = resolve_precision("auto", report.device)
    prepared = place_model(config, built, facts, report.device, precision)
    return Case(config, prepared, make_batches(config, dimensions, batches, report.device))


def make_batches(config: TrialConfig, dimensions: int, count: int, device: torch.device) -> list[Batch]:
    """Batches whose label is whether the image is bright, so that there is something to learn."""
    random = torch.Generator().manual_seed(0)
    shape = (config.image_size,) * dimensions
    made: list[Batch] = []
    for _ in range(count):
        labels = torch.randint(0, 2, (config.batch_size,), generator=random)
        noise = torch.randint(0, 100, (config.batch_size, 1, *shape), generator=random)
        images = (noise + 100 * labels.reshape(-1, *(1,) * (dimensions + 1))).to(torch.uint8)
        parameters = draw_parameters(config.batch_size, shape, random, mirror_safe=True)
        made.append((images.to(device), labels.to(device), parameters.to(device)))
    return made


def patches(report: Report, dimensions: int) -> tuple[int, ...]:
    """The patch sizes that are checked."""
    if report.tiny:
        return (8, 4)
    return (28, 14, 7, 4, 2, 1) if dimensions == 2 else (28, 14, 7, 4, 2)


def clean(device: torch.device) -> None:
    """Give back what earlier parts held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def losses_of(step: nn.Module | TrainingStep, batches: list[Batch]) -> list[float]:
    """The losses of a step on each batch."""
    return [step(*batch).item() for batch in batches]
