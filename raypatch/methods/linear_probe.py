"""Linear probe: the head trains by gradient on the features of a frozen backbone."""

from collections.abc import Callable, Hashable, Iterator, Sequence

from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.models.build import build_head
from raypatch.models.prepared import PreparedModel
from raypatch.training.checkpoints.checkpoint import Progress, Tensors
from raypatch.training.loop import Trial, TrialError, train_epochs
from raypatch.training.stacked import can_stack, stack_key, train_stacked


class LinearProbe:
    """Only the head trains; the backbone stays in evaluation mode, where nothing is random.

    Without augmentation the features of an image are the same in every epoch. They are computed
    once and stored, and the heads of several trials train together on them.
    """

    name = "linear_probe"
    trains_backbone = False
    weight_copies = 1

    def reads_features(self, config: TrialConfig) -> bool:
        return config.augmentation == "none"

    def build_head(self, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
        return build_head(config, dimensions=dimensions, outputs=outputs)

    def restore_head(self, head: nn.Module, stored: Tensors, train: Callable[[], Tensor], outputs: int) -> None:
        head.load_state_dict(stored)

    def prepare(self, prepared: PreparedModel) -> None:
        prepared.model.requires_grad_(False)
        prepared.head.requires_grad_(True)

    def set_training_mode(self, prepared: PreparedModel) -> None:
        # Dropout and batch statistics would make the features differ from step to step.
        prepared.model.eval()
        prepared.head.train()

    def fit(self, trial: Trial) -> Progress:
        return train_epochs(trial, lambda: self.set_training_mode(trial.prepared))

    def group_key(self, config: TrialConfig) -> Hashable | None:
        return stack_key(config) if self.reads_features(config) else None

    def fit_group(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Progress | TrialError]]:
        if can_stack(trials[0].prepared.head):
            yield from train_stacked(trials)
            return
        for trial in trials:
            try:
                yield trial, self.fit(trial)
            except TrialError as error:
                yield trial, error
