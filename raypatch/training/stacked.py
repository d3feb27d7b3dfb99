"""Heads of several trials, trained together on features that they share: each product is one of all."""

import copy
import logging
import math
import time
from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from raypatch.config import TrialConfig
from raypatch.data.resident import ResidentSplit
from raypatch.machine.runtime import generator, peak_memory
from raypatch.results import EpochRow, append_epoch
from raypatch.training.checkpoint import Progress, load_tensors, save_tensors, training_state
from raypatch.training.evaluate import score_logits
from raypatch.training.loop import Interrupted, Trial, TrialError, advance
from raypatch.training.optim import learning_rate, make_optimizer, set_learning_rate
from raypatch.training.resume import resume
from raypatch.training.stacked_optimizer import StackedOptimizer

logger = logging.getLogger(__name__)

FREE_FIELDS = frozenset(
    ("lr", "weight_decay", "schedule", "step_epochs", "step_gamma", "warmup_epochs", "selection", "seed")
)
"""Fields in which trials that train together may differ."""

CHECKPOINT_SECONDS = 5.0
"""How much work of a group a kill may cost. Files of each trial after each epoch would cost more than the training."""

VALUES_AT_ONCE = 2**24
"""Features times heads in memory at once while a split is evaluated."""


def stack_key(config: TrialConfig) -> Hashable | None:
    """Return what trials share whose heads may train together; None for a trial that must train alone."""
    # A loss of one's own may do what cannot be done for several trials at once.
    if config.task is not None and ":" in config.task:
        return None
    fields = config.model_dump(exclude=set(FREE_FIELDS))
    if config.weights == "random":
        # The features are those of the seed's backbone.
        fields["seed"] = config.seed
    return tuple(sorted((name, str(value)) for name, value in fields.items()))


def can_stack(head: nn.Module) -> bool:
    """Return whether heads like this one train alike together and alone: nothing in them is random or counts."""
    for module in head.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return False
    return not list(head.buffers())


class Member:
    """A trial of a group: its own head and optimizer, as its files hold them, and how far it is."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.config = trial, trial.config
        self.head = trial.prepared.model
        self.optimizer = make_optimizer(self.head, trial.config)
        self.progress = resume(trial.paths, self.head, self.optimizer)
        self.best: dict[str, Tensor] = {}
        best = load_tensors(trial.paths.best_weights)
        if best is not None:
            self.best = {name: tensor.to(trial.prepared.device) for name, tensor in best[0].items()}

    @property
    def is_over(self) -> bool:
        return self.progress.epoch >= self.config.epochs

    def set_learning_rate(self) -> float:
        """Set the learning rate of the next epoch, and return it."""
        lr = learning_rate(self.config, self.progress.epoch)
        set_learning_rate(self.optimizer, lr)
        return lr

    def order(self) -> Tensor:
        """The order of the training images in the next epoch, as in a trial that trains alone."""
        random = generator(self.config.seed, self.progress.epoch, "order")
        return torch.randperm(len(self.trial.train), generator=random)

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


class Stack:
    """The heads of the members as one: parameters (T, ...), products for all T at once."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        first = members[0]
        self._task = first.trial.task
        # Its own parameters are never used: those of a trial come with each call.
        self._template = copy.deepcopy(first.head).requires_grad_(False)
        self.parameters: dict[str, Tensor] = {}
        for name, _ in first.head.named_parameters():
            rows = [member.head.get_parameter(name).detach() for member in members]
            self.parameters[name] = torch.stack(rows).requires_grad_()
        heads = [member.head for member in members]
        optimizers = [member.optimizer for member in members]
        self.optimizer = StackedOptimizer(first.config.optimizer, self.parameters, heads, optimizers)

    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """Take one step of each trial on its own batch; return the mean losses (T,).

        features: (T, B, ...). labels: (T, B) or (T, B, L).
        """
        losses = vmap(self._loss)(self.parameters, features, labels)
        # A trial's loss hangs on its own row alone, so that the sum has the gradients of all.
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        self.optimizer.step(dict(zip(self.parameters, gradients, strict=True)))
        return losses.detach()

    @torch.no_grad()
    def logits(self, features: Tensor, device: torch.device) -> Tensor:
        """Logits (T, N, outputs) of every trial for the same features (N, ...)."""
        values = len(self.members) * math.prod(features.shape[1:])
        parts = features.split(max(1, VALUES_AT_ONCE // values))
        every = vmap(self._logits, in_dims=(0, None))
        return torch.cat([every(self.parameters, part.to(device)) for part in parts], dim=1)

    def _logits(self, parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._template, parameters, (features,))
        return logits

    def _loss(self, parameters: dict[str, Tensor], features: Tensor, labels: Tensor) -> Tensor:
        return self._task.loss(self._logits(parameters, features), labels)


def train_stacked(trials: Sequence[Trial]) -> Iterator[tuple[Trial, Progress | TrialError]]:
    """Train the heads of trials of one `stack_key`, each from its own checkpoint on.

    The trials share the features (`FeatureSplit.whole`). Gives each trial with its progress when it is
    over, its head with its best weights, or with the error of one that diverged. The others go on.
    The numbers are those of a trial alone up to rounding. Raises Interrupted when asked to stop.
    """
    running = [Member(trial) for trial in trials]
    logger.info("%d heads train together", len(running))
    while running:
        for member in running:
            if member.is_over:
                yield member.trial, member.finish()
        running = [member for member in running if not member.is_over]
        for member, error in _train_until_one_leaves(running):
            yield member.trial, error
            running.remove(member)


def _train_until_one_leaves(members: Sequence[Member]) -> list[tuple[Member, TrialError]]:
    """Train until a trial is over or has diverged; return those that have, with their error."""
    if not members:
        return []
    stack = Stack(members)
    saved = time.monotonic()
    while True:
        rows = _train_epoch(stack)
        diverged = []
        for member, row in zip(members, rows, strict=True):
            if isinstance(row, TrialError):
                diverged.append((member, row))
        one_leaves = bool(diverged) or any(member.is_over for member in members)
        checkpoint = one_leaves or time.monotonic() - saved > CHECKPOINT_SECONDS
        if checkpoint:
            stack.optimizer.write_back()
            saved = time.monotonic()
        for member, row in zip(members, rows, strict=True):
            if isinstance(row, TrialError):
                continue
            # On disk before the checkpoint, which must never be ahead of the rows.
            append_epoch(member.trial.paths.epochs, row, sync=checkpoint)
            if checkpoint:
                member.save()
            member.trial.on_epoch(row)
        if one_leaves:
            return diverged


def _train_epoch(stack: Stack) -> list[EpochRow | TrialError]:
    """Train an epoch of each trial; return its row, or the error of a trial that diverged."""
    members = stack.members
    first = members[0].trial
    started = time.perf_counter()
    rates = [member.set_learning_rate() for member in members]
    stack.optimizer.read_rates()
    losses = _take_steps(stack)
    # Each trial counts its share of the time, so that their sum is what was spent.
    train_seconds = (time.perf_counter() - started) / len(members)
    every_logits = stack.logits(first.val.images, first.prepared.device)
    rows: list[EpochRow | TrialError] = []
    for place, member in enumerate(members):
        epoch, loss, logits = member.progress.epoch + 1, losses[place], every_logits[place]
        if not (math.isfinite(loss) and logits.isfinite().all()):
            rows.append(
                TrialError(f"training diverged in epoch {epoch}: its loss is {loss}; lower lr={member.config.lr}")
            )
            continue
        row = EpochRow(
            epoch=epoch,
            train_loss=loss,
            val=dict(score_logits(logits, first.val.labels, first.task, final=False)),
            lr=rates[place],
            seconds=train_seconds,
            images_per_second=len(member.trial.train) / train_seconds,
            peak_memory_bytes=peak_memory(first.prepared.device),
        )
        member.progress = advance(member.progress, row, member.config)
        if member.progress.best_epoch == row.epoch:
            for name, parameter in stack.parameters.items():
                member.best[name] = parameter.detach()[place].clone()
        rows.append(row)
    validation_seconds = (time.perf_counter() - started) / len(members) - train_seconds
    return [_with_seconds(row, validation_seconds) for row in rows]


def _with_seconds(row: EpochRow | TrialError, more: float) -> EpochRow | TrialError:
    """The row with the seconds of the validation added."""
    if isinstance(row, TrialError):
        return row
    return row.model_copy(update={"seconds": row.seconds + more})


def _take_steps(stack: Stack) -> list[float]:
    """Take the steps of an epoch; return the mean loss of each trial. Raises Interrupted when asked to stop."""
    first = stack.members[0].trial
    whole, batch_size = _whole_features(first.train), first.config.batch_size
    rows, labels = [], []
    for member in stack.members:
        order = member.order()
        train = member.trial.train
        rows.append(train.index[order])
        labels.append(train.labels[order.to(train.labels.device)])
    every_row = torch.stack(rows).to(whole.device)
    every_label = torch.stack(labels).to(first.prepared.device)
    count = every_row.shape[1]
    losses = torch.zeros(len(rows), device=first.prepared.device)
    for start in range(0, count, batch_size):
        if first.should_stop():
            raise Interrupted
        batch = every_row[:, start : start + batch_size]
        features = whole[batch].to(first.prepared.device)
        losses += stack.step(features, every_label[:, start : start + batch_size]) * batch.shape[1]
    return (losses / count).tolist()


def _whole_features(train: ResidentSplit) -> Tensor:
    """The features of all training images, of which each trial takes its own."""
    whole: Tensor = getattr(train, "whole", train.images)
    return whole
