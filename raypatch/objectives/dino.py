"""DINO: a student agrees with its own moving average on what other views of an image show.

Caron et al. 2021, arXiv 2104.14294; the recipe for medical images is that of arXiv 2303.07034.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.data.batches.augment import to_float
from raypatch.data.batches.resize import resize_images
from raypatch.data.catalog import DatasetInfo
from raypatch.models.build import seeded
from raypatch.models.flops import count_outputs
from raypatch.models.prepared import PreparedModel
from raypatch.objectives.encoder import Encoder, check_sizes, drop_paths, encode, without_head_layer
from raypatch.objectives.schedules import Moment, teacher_momentum, teacher_temperature
from raypatch.objectives.views import DrawnView, draw_view, make_view, view_kinds
from raypatch.trial_fields.objective import BOTTLENECK, local_size

GLOBAL_VIEWS = 2

LEAST_INFORMATION = 0.01
"""Share of the most that a teacher's output can say about which image it is of; below, it says nothing."""


class ProjectionHead(nn.Module):
    """Features (B, width) -> cosines with prototypes (B, prototypes): two hidden layers with GELU, a bottleneck that is
    normalised, and a last layer whose rows have length 1.
    """

    def __init__(self, width: int, hidden: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, BOTTLENECK)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last = nn.Linear(BOTTLENECK, prototypes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        # In float32: rounded, the normalised rows would no longer have length 1.
        with torch.autocast(features.device.type, enabled=False):
            narrow = F.normalize(self.mlp(features.float()), dim=1)
            return F.linear(narrow, F.normalize(self.last.weight, dim=1))


class Projected(nn.Module):
    """A network with its projection: student or teacher."""

    def __init__(self, encoder: Encoder, head: ProjectionHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.head(encode(self.encoder, images))
        return outputs


def dino_loss(student: Sequence[Tensor], targets: Sequence[Tensor], temperature: float) -> Tensor:
    """Mean cross-entropy (nats per image) of each target with what the student says of every other view.

    student: outputs (B, K) of all views, those that have a target first. targets: probabilities (B, K).
    """
    terms = []
    for place, target in enumerate(targets):
        for view, output in enumerate(student):
            # A view says nothing about itself.
            if view != place:
                terms.append(-(target * F.log_softmax(output / temperature, dim=1)).sum(dim=1).mean())
    return torch.stack(terms).mean()


def sharpen(outputs: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Probabilities (B, K) of the teacher's outputs: centred, and sharpened by a low temperature."""
    return F.softmax((outputs - centre) / temperature, dim=1)


def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher's parameters: momentum x teacher + (1 - momentum) x student."""
    with torch.no_grad():
        for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
            own.lerp_(other, 1 - momentum)


def entropy(probability: Tensor) -> Tensor:
    """Entropy in nats along the last axis."""
    return -torch.xlogy(probability, probability).sum(dim=-1)


class DinoLearner(nn.Module):
    """Student, teacher and centre, all of which a checkpoint holds."""

    centre: Tensor

    def __init__(self, prepared: PreparedModel, config: TrialConfig, info: DatasetInfo) -> None:
        super().__init__()
        self.config, self.info = config, info
        self.normalize, self.device = prepared.normalize, prepared.device
        self.kinds = view_kinds(config)
        body = without_head_layer(prepared.family, prepared.model)
        encoder = Encoder(prepared.family, body, config.image_size)
        with torch.no_grad():
            blank = torch.zeros(2, 3, *(config.image_size,) * info.dimensions, device=prepared.device)
            width = encoder.eval()(blank).shape[1]
        with seeded(config.seed):
            head = ProjectionHead(width, config.projection_width, config.prototypes)
        self.student = Projected(encoder, head.to(prepared.device))
        same = Encoder(prepared.family, copy.deepcopy(body), config.image_size)
        self.teacher = Projected(same, copy.deepcopy(head)).requires_grad_(False)
        # Of the student alone: the teacher is to say what it knows.
        drop_paths(body, config.drop_path)
        self.register_buffer("centre", torch.zeros(config.prototypes, device=prepared.device))
        self._moment: Moment | None = None
        self._sum = torch.zeros_like(self.centre)
        self._seen, self._steps = 0, 0
        # Sums over the steps since they were asked for, on the device: entropy, and of the mean.
        self._watched = torch.zeros(2, device=prepared.device)
        self._mean = torch.zeros_like(self.centre)
        self._entropy = torch.zeros((), device=prepared.device)

    def draw(self, count: int, generator: torch.Generator) -> list[DrawnView]:
        dimensions, edge = self.info.dimensions, self.config.image_size
        drawn = []
        for kind in self.kinds:
            view = draw_view(kind, count, edge, generator, dimensions=dimensions, mirror_safe=self.info.mirror_safe)
            drawn.append(view)
        return drawn

    def begin(self, moment: Moment) -> None:
        self.train()
        self._moment, self._seen = moment, 0
        for tally in (self._sum, self._mean, self._entropy):
            tally.zero_()

    def loss(self, images: Tensor, drawn: list[DrawnView]) -> Tensor:
        assert self._moment is not None, "begin comes before"
        config = self.config
        pixels = to_float(resize_images(images, config.image_size, config.resize))
        views = []
        # Float32 here, also in a region of autocast: rounded positions would move the crops.
        with torch.autocast(images.device.type, enabled=False):
            for view, kind in zip(drawn, self.kinds, strict=True):
                views.append(self.normalize(make_view(pixels, view, kind)))
        # Views of one size go through together.
        large, small = torch.cat(views[:GLOBAL_VIEWS]), views[GLOBAL_VIEWS:]
        with torch.no_grad():
            outputs = self.teacher(large)
            temperature = teacher_temperature(config, self._moment.epoch)
            targets = sharpen(outputs, self.centre, temperature)
            self._tally(outputs, targets)
        said = list(self.student(large).chunk(GLOBAL_VIEWS))
        if small:
            said += self.student(torch.cat(small)).chunk(len(small))
        return dino_loss(said, targets.chunk(GLOBAL_VIEWS), config.student_temperature)

    def before_update(self) -> None:
        """Keep the last layer as it was drawn in the first epoch: it would run ahead of the rest."""
        assert self._moment is not None, "begin comes before"
        if self._moment.epoch == 0:
            self.student.head.last.weight.grad = None

    def after_update(self) -> None:
        assert self._moment is not None, "begin comes before"
        follow(self.teacher, self.student, teacher_momentum(self.config, self._moment))
        momentum = self.config.centre_momentum
        self.centre.mul_(momentum).add_(self._sum / self._seen, alpha=1 - momentum)
        self._watched += torch.stack([self._entropy / self._seen, entropy(self._mean / self._seen)])
        self._steps += 1

    def watched(self) -> dict[str, float]:
        """teacher_entropy: of a view's output, nats. teacher_information: how much less that is than the entropy of the
        mean output, which is what an output says about which image it is of; the mean over the steps.
        """
        of_each, of_mean = (self._watched / self._steps).tolist()
        self._watched.zero_()
        self._steps = 0
        return {"teacher_entropy": of_each, "teacher_information": of_mean - of_each}

    def alarm(self, watched: dict[str, float]) -> str | None:
        """Say that the teacher gives all images the same output: then nothing is learned."""
        most = math.log(min(self.config.batch_size, self.config.prototypes))
        if watched["teacher_information"] >= LEAST_INFORMATION * most:
            return None
        # A low temperature drives outputs apart, the centre keeps them from one prototype.
        how = "on all prototypes alike; lower first_temperature and teacher_temperature, or the rate"
        if watched["teacher_entropy"] < most / 2:
            how = "on one prototype; lower centre_momentum, or raise the temperatures"
        return f"collapsed: the teacher says the same of every image, {how}"

    def kept(self) -> nn.Module:
        """The last teacher: the best by a score on labels would use these."""
        return self.teacher.encoder.body

    def features(self, images: Tensor) -> Tensor:
        self.teacher.eval()
        features: Tensor = self.teacher.encoder(images)
        return features

    def _tally(self, outputs: Tensor, targets: Tensor) -> None:
        self._sum += outputs.sum(dim=0)
        self._mean += targets.sum(dim=0)
        self._entropy += entropy(targets).sum()
        self._seen += len(outputs)


class Dino:
    """The objective."""

    name = "dino"

    def check(self, config: TrialConfig, info: DatasetInfo) -> None:
        """Raise ValueError for a model that cannot take local views."""
        edge = local_size(config.image_size, config.patch_size)
        if edge is None or config.local_views == 0:
            return
        outputs = count_outputs(config, info)
        check_sizes(config, edge, dimensions=info.dimensions, outputs=outputs)

    def make_learner(self, prepared: PreparedModel, config: TrialConfig, info: DatasetInfo) -> DinoLearner:
        return DinoLearner(prepared, config, info)
