"""A trial of a group that trains together, as its own files hold it."""

from torch import Tensor

from raypatch.training.checkpoints.checkpoint import Progress, load_tensors, save_tensors, training_state
from raypatch.training.checkpoints.resume import resume
from raypatch.training.loop import Trial
from raypatch.training.optim import learning_rates, make_optimizer, set_learning_rates
from raypatch.training.progress import is_over
from raypatch.trial_fields.length import training_length


class Member:
    """A trial of a group: its own head and optimizer, as its files hold them, and how far it is."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.config = trial, trial.config
        self.head = trial.prepared.model
        self.length = training_length(trial.config, len(trial.train))
        self.optimizer = make_optimizer(self.head, trial.config, self.head)
        self.progress = resume(trial.paths, self.head, self.optimizer, self.length)
        self.best: dict[str, Tensor] = {}
        best = load_tensors(trial.paths.best_weights)
        if best is not None:
            self.best = {name: tensor.to(trial.prepared.device) for name, tensor in best[0].items()}

    @property
    def is_over(self) -> bool:
        return is_over(self.progress, self.config, self.length)

    def set_learning_rate(self, step: int) -> float:
        """Set the learning rate of a step, and return it."""
        rates = learning_rates(self.config, self.length, step, self.progress.reductions)
        set_learning_rates(self.optimizer, rates)
        return rates[self.optimizer.param_groups[0]["part"]]

    def save(self) -> None:
        """Write the checkpoint, with the best weights, which are small."""
        tensors = training_state(self.head, self.optimizer)
        for name, tensor in self.best.items():
            tensors[f"best.{name}"] = tensor
        save_tensors(self.trial.paths.checkpoint, tensors, self.progress)

    def finish(self) -> Progress:
        """Leave head and folder with the best weights."""
        progress = self.progress
        at_best = Progress(progress.best_epoch, progress.best_epoch, progress.best_figure)
        save_tensors(self.trial.paths.best_weights, self.best, at_best)
        self.head.load_state_dict(self.best)
        return progress
