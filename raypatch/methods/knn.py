"""k nearest neighbours: nothing trains; the most similar training images vote."""

from collections.abc import Callable

from torch import Tensor, nn

from raypatch.config import TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.models.neighbours import NearestNeighbours
from raypatch.models.prepared import PreparedModel
from raypatch.training.checkpoints.checkpoint import Progress, Tensors, save_tensors
from raypatch.training.loop import Trial


class KNearestNeighbours:
    """The features of a frozen backbone, compared; without epochs."""

    name = "knn"
    trains_backbone = False
    weight_copies = 0

    def check(self, config: TrialConfig, info: DatasetInfo) -> None:
        """Raise ValueError for more neighbours than there are training images."""
        images = info.training_images(config.train_fraction)
        if config.k > images:
            raise ValueError(
                f"k={config.k} is more than the {images} training images of {config.dataset_label}"
                f" that a trial sees; use at most {images}"
            )

    def reads_features(self, config: TrialConfig) -> bool:
        # Whatever augmentation says: images are compared as they are.
        return True

    def build_head(self, config: TrialConfig, *, dimensions: int, outputs: int) -> nn.Module:
        return NearestNeighbours(config)

    def prepare(self, prepared: PreparedModel) -> None:
        prepared.model.requires_grad_(False)

    def set_training_mode(self, prepared: PreparedModel) -> None:
        prepared.model.eval()

    def fit(self, trial: Trial) -> Progress:
        """Take the training images, and write down which: their features lie in the store."""
        self.check(trial.config, trial.info)
        train = trial.train
        outputs = trial.task.outputs(trial.info.classes)
        _neighbours(trial.prepared.model).remember(train.images, train.labels, outputs)
        save_tensors(trial.paths.best_weights, {"index": train.index, "labels": train.labels}, Progress())
        return Progress()

    def restore_head(self, head: nn.Module, stored: Tensors, train: Callable[[], Tensor], outputs: int) -> None:
        _neighbours(head).remember(train()[stored["index"]], stored["labels"], outputs)


def _neighbours(head: nn.Module) -> NearestNeighbours:
    assert isinstance(head, NearestNeighbours), "build_head made it"
    return head
