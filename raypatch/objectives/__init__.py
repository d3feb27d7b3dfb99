"""Objectives: what a network learns without labels. One file each, behind one protocol."""

from typing import TYPE_CHECKING, Protocol

from raypatch.registry import Registry

if TYPE_CHECKING:  # objectives stand above the models, and what they are may be asked from below
    import torch
    from torch import Tensor, nn

    from raypatch.config import TrialConfig
    from raypatch.data.catalog import DatasetInfo
    from raypatch.models.prepared import PreparedModel
    from raypatch.objectives.schedules import Moment
    from raypatch.objectives.views import DrawnView


class Learner(Protocol):
    """A network that learns, with all that it needs for that: a torch module, whose state is all of it.

    student: what the optimizer moves.
    """

    student: "nn.Module"

    def draw(self, count: int, generator: "torch.Generator") -> "list[DrawnView]":
        """Draw what is seen of each of `count` images in an epoch."""
        ...

    def begin(self, moment: "Moment") -> None:
        """Begin a step, or begin it again."""
        ...

    def loss(self, images: "Tensor", drawn: "list[DrawnView]") -> "Tensor":
        """Return the mean loss of a part of the step's images, uint8 (B, C, *spatial), a scalar with a gradient."""
        ...

    def before_update(self) -> None:
        """Look at the gradients of the whole batch before the optimizer does."""
        ...

    def after_update(self) -> None:
        """Follow what the optimizer has done."""
        ...

    def watched(self) -> dict[str, float]:
        """Return what was watched since this was asked last, by name."""
        ...

    def alarm(self, watched: dict[str, float]) -> str | None:
        """Say what is wrong with what was watched; None where nothing is."""
        ...

    def kept(self) -> "nn.Module":
        """Return the network whose weights are kept: a family's model without its head."""
        ...

    def features(self, images: "Tensor") -> "Tensor":
        """Return the features (B, width) that the kept network has of normalised images."""
        ...


class Objective(Protocol):
    """What a network learns without labels.

    name: as TrialConfig.objective has it.
    """

    name: str

    def check(self, config: "TrialConfig", info: "DatasetInfo") -> None:
        """Raise ValueError, with the way out, for fields that do not fit the data."""
        ...

    def make_learner(self, prepared: "PreparedModel", config: "TrialConfig", info: "DatasetInfo") -> "Learner":
        """Make a learner of a trial's model on its device; what it draws follows from the seed."""
        ...


OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    Objective,
    group="raypatch.objectives",
    shipped={"dino": "raypatch.objectives.dino:Dino"},
)


def find_objective(name: str) -> Objective:
    """Return the objective called `name`: dino, module:NAME or of an installed package.

    Raises ValueError for an unknown one and for one that lacks a part of the protocol.
    """
    return OBJECTIVES.find(name)
