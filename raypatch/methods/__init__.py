"""Methods: how a trial gets from a model to predictions. One file each, behind one protocol."""

from typing import TYPE_CHECKING, Protocol

from raypatch.registry import Registry

if TYPE_CHECKING:  # methods stand above the training loop, and what they are may be asked from below it
    from raypatch.models.prepared import PreparedModel
    from raypatch.training.checkpoint import Progress
    from raypatch.training.loop import Trial


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


METHODS: Registry[Method] = Registry(
    "method",
    Method,
    group="raypatch.methods",
    shipped={
        "finetune": "raypatch.methods.finetune:Finetune",
        "linear_probe": "raypatch.methods.linear_probe:LinearProbe",
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
