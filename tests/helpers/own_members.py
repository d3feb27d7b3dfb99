"""A model family, a task, a metric and a method as a user writes them, in a module outside the package."""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from raypatch.config import TrialConfig
from raypatch.methods.finetune import Finetune
from raypatch.models.families.counted import CountedFamily
from raypatch.tasks import Metric, find_task
from raypatch.tasks.classification import OneClass


class SmallNet(nn.Module):
    """Two convolutions, the mean over the image, one linear layer."""

    def __init__(self, dimensions: int, outputs: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.body = nn.Sequential(convolution(3, 8, 3, padding=1), nn.ReLU(), convolution(8, 8, 3, padding=1))
        self.classifier = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images).flatten(2).mean(dim=2)
        logits: Tensor = self.classifier(features)
        return logits


class SmallNets(CountedFamily):
    """The family of SmallNet: what a user must write."""

    name = "small net"

    def construct(self, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
        return SmallNet(dimensions, outputs)

    def head_name(self, model: nn.Module) -> str:
        return "classifier"


class HalfFamily:
    """Lacks most of the protocol."""

    name = "half"

    def takes(self, model: str) -> bool:
        return False


def macro_f1(probability: np.ndarray, label: np.ndarray, task: object) -> float:
    """Mean F1 over the classes."""
    counts = task.class_counts(probability, label)  # type: ignore[attr-defined]
    return float(np.mean(2 * counts.right / np.maximum(counts.images + counts.predicted, 1)))


def error_rate(probability: np.ndarray, label: np.ndarray, task: object) -> float:
    """Share of wrong predictions."""
    return float((task.predicted(probability) != label).mean())  # type: ignore[attr-defined]


MACRO_F1 = Metric("macro_f1", "F1", "macro F1", macro_f1)
ERROR_RATE = Metric("error_rate", "ERR", "error rate", error_rate, lower_is_better=True, each_epoch=False)


class SmoothedTask(OneClass):
    """Classes with smoothed labels, scored by F1 too."""

    metrics = (*find_task("multiclass").metrics, MACRO_F1, ERROR_RATE)
    default_metric = "macro_f1"

    def __init__(self) -> None:
        super().__init__("smoothed")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=0.1)


class HalfMaskTask:
    """A task on masks without its counts."""

    name = "half"
    kinds = ("segmentation",)
    reads = "masks"
    metrics = ()
    default_metric = "dice"

    def __getattr__(self, name: str) -> object:
        if name == "count":
            raise AttributeError(name)
        return find_task("segmentation").__getattribute__(name)


class FreezeBias(Finetune):
    """Fine-tuning that leaves the biases alone."""

    name = "freeze_bias"

    def prepare(self, prepared: object) -> None:
        for name, parameter in prepared.model.named_parameters():  # type: ignore[attr-defined]
            parameter.requires_grad_(not name.endswith("bias"))
