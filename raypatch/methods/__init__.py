"""Methods: how a trial gets from a model to predictions. One file each, behind one protocol."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from raypatch.registry import Registry

if TYPE_CHECKING:  # methods stand above the training loop, and what they are may be asked from below it
    from torch import Tensor, nn

    from raypatch.config import TrialConfig
    from raypatch.data.catalog import DatasetInfo
    from raypatch.models.prepared import PreparedModel
    from raypatch.training.checkpoints.checkpoint import Progress, Tensors
    from raypatch.training.loop import Trial, TrialError


class Method(Protocol):
    """How a trial gets from a model to predictions.

    name: as TrialConfig.method has it. trains_backbone: all weights train, so
    that a forward pass keeps its activations and every weight has a gradient;
    else the head alone does. weight_copies: how often a checkpoint holds the
    weights, with an optimizer that keeps two moments of each one that trains.
    """

    name: str
    trains_backbone: bool
    weight_copies: int

    def prepare(self, prepared: "PreparedModel") -> None:
        """Mark which weights train, once, before an optimizer is made."""
        ...

    def set_training_mode(self, prepared: "PreparedModel") -> None:
        """Bring the model into the mode in which its steps are taken."""
        ...

    def fit(self, trial: "Trial") -> "Progress":
        """Fit the model, from the trial's checkpoint if there is one,
        and leave it with the weights that predict.

        Writes the trial's epochs and best weights. Raises Interrupted when asked to stop,
        TrialError when no try can succeed.
        """
        ...


@runtime_checkable
class CheckedMethod(Protocol):
    """A method that can say of a trial, before anything starts, that it cannot work."""

    def check(self, config: "TrialConfig", info: "DatasetInfo") -> None:
        """Raise ValueError, with the way out, for fields that do not fit the data."""
        ...


@runtime_checkable
class FeatureMethod(Protocol):
    """A method that may need no more of the backbone than one feature vector per image.

    Its trials are then fitted on stored features: `Trial.prepared` is the head alone, and features
    stand in for images. Its best weights are what `restore_head` needs.
    """

    def reads_features(self, config: "TrialConfig") -> bool:
        """Return whether this trial is fitted on stored features."""
        ...

    def build_head(self, config: "TrialConfig", *, dimensions: int, outputs: int) -> "nn.Module":
        """Build what makes logits of features, on the CPU."""
        ...

    def restore_head(self, head: "nn.Module", stored: "Tensors", train: "Callable[[], Tensor]", outputs: int) -> None:
        """Bring a new head to the state that a trial's best weights hold.

        train: gives the features of all training images.
        """
        ...


@runtime_checkable
class GroupMethod(Protocol):
    """A method that can fit several trials together.

    Heads on stored features always go together; whole models where `--stack` says so.
    """

    def group_key(self, config: "TrialConfig") -> Hashable | None:
        """Return what trials share that are fitted together; None for one that is fitted alone."""
        ...

    def fit_group(self, trials: "Sequence[Trial]") -> "Iterator[tuple[Trial, Progress | TrialError]]":
        """Fit each trial as `fit` does, and give each as soon as it is fitted, or cannot be."""
        ...


MOST_TOGETHER = 64
"""Trials of one group at most: more would share no more, and keep other workers waiting."""

METHODS: Registry[Method] = Registry(
    "method",
    Method,
    group="raypatch.methods",
    shipped={
        "finetune": "raypatch.methods.finetune:Finetune",
        "linear_probe": "raypatch.methods.linear_probe:LinearProbe",
        "knn": "raypatch.methods.knn:KNearestNeighbours",
        "pretrain": "raypatch.methods.pretrain:Pretrain",
    },
)


def find_method(name: str) -> Method:
    """Return the method called `name`: finetune, linear_probe,
    module:NAME or of an installed package.

    Raises ValueError for an unknown one and for one that lacks a part of the protocol.
    """
    return METHODS.find(name)


def check_method(name: str) -> None:
    """Raise ValueError where there is no method called `name`;
    a shipped one is not loaded for that.
    """
    if name not in METHODS.shipped:
        find_method(name)


def feature_method(config: "TrialConfig") -> FeatureMethod | None:
    """Return the method of a trial that is fitted on stored features; None for any other trial."""
    method = find_method(config.method)
    if isinstance(method, FeatureMethod) and method.reads_features(config):
        return method
    return None


def group_key(config: "TrialConfig") -> Hashable | None:
    """Return what trials share that are fitted together; None for one that is fitted alone."""
    method = find_method(config.method)
    return method.group_key(config) if isinstance(method, GroupMethod) else None


def check_fields(config: "TrialConfig", info: "DatasetInfo") -> None:
    """Raise ValueError for a trial that its method knows it cannot fit."""
    method = find_method(config.method)
    if isinstance(method, CheckedMethod):
        method.check(config, info)
