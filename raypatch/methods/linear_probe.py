"""Linear probe: the head trains by gradient on the features of a frozen backbone."""

from raypatch.models.prepared import PreparedModel
from raypatch.training.checkpoint import Progress
from raypatch.training.loop import Trial, train_epochs


class LinearProbe:
    """Only the head trains; the backbone stays in evaluation mode, where nothing is random."""

    name = "linear_probe"
    trains_backbone = False
    weight_copies = 1

    def prepare(self, prepared: PreparedModel) -> None:
        prepared.model.requires_grad_(False)
        prepared.head.requires_grad_(True)

    def set_training_mode(self, prepared: PreparedModel) -> None:
        # Dropout and batch statistics would make the features differ from step to step.
        prepared.model.eval()
        prepared.head.train()

    def fit(self, trial: Trial) -> Progress:
        return train_epochs(trial, lambda: self.set_training_mode(trial.prepared))
