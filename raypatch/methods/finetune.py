"""Fine-tuning: all weights train by gradient."""

from collections.abc import Hashable, Iterator, Sequence

from raypatch.config import TrialConfig
from raypatch.models.prepared import PreparedModel
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.loop import Trial, TrialError, train_epochs
from raypatch.training.stacked_models import models_key, train_models


class Finetune:
    """All weights train, epoch by epoch."""

    name = "finetune"
    trains_backbone = True
    weight_copies = 3

    def prepare(self, prepared: PreparedModel) -> None:
        # All of it, also what a family builds frozen.
        prepared.model.requires_grad_(True)

    def set_training_mode(self, prepared: PreparedModel) -> None:
        prepared.model.train()

    def fit(self, trial: Trial) -> Progress:
        return train_epochs(trial, lambda: self.set_training_mode(trial.prepared))

    def group_key(self, config: TrialConfig) -> Hashable | None:
        return models_key(config)

    def fit_group(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Progress | TrialError]]:
        return train_models(trials, lambda trial: self.set_training_mode(trial.prepared))
