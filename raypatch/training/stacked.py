"""Heads of several trials, trained together on features that they share: each product is one of all."""

import contextlib
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
from raypatch.machine.runtime import on_one_thread, peak_memory
from raypatch.results import EpochRow, append_epoch
from raypatch.training.checkpoint import Progress, load_tensors, save_tensors, training_state
from raypatch.training.evaluate import find_alarm, score_logits
from raypatch.training.loop import Interrupted, Trial, TrialError, draw_order
from raypatch.training.loss import Loss, make_loss
from raypatch.training.optim import HEAD, learning_rates, make_optimizer, set_learning_rates
from raypatch.training.progress import advance, is_over
from raypatch.training.resume import resume
from raypatch.training.stacked_optimizer import StackedOptimizer
from raypatch.trial_fields.length import training_length

logger = logging.getLogger(__name__)

FREE_FIELDS = frozenset(
    (
        *("lr", "head_lr", "encoder_lr", "weight_decay", "min_lr"),
        *("schedule", "head_schedule", "step_epochs", "step_steps", "step_gamma", "plateau_patience"),
        *("warmup_epochs", "warmup_steps", "patience", "selection", "seed"),
    )
)
"""Fields in which trials that train together may differ."""

CHECKPOINT_SECONDS = 5.0
"""How much work of a group a kill may cost. Files of each trial after each epoch would cost more than the training."""

VALUES_AT_ONCE = 2**24
"""Features times heads in memory at once while a split is evaluated."""

SMALL_STEP = 2**26
"""Multiply-accumulates of one step, forward, up to which a CPU takes it on one thread."""


def stack_key(config: TrialConfig) -> Hashable | None:
    """Return what trials share whose heads may train together; None for a trial that must train alone."""
    # A loss of one's own may do what cannot be done for several trials at once.
    if config.task is not None and ":" in config.task:
        return None
    # And a head that is not to learn is refused, which must hit that trial alone.
    if config.base_rates[HEAD] == 0:
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


class Stack:
    """The heads of T trials as one: parameters (T, ...), products for all T at once.

    heads, optimizers: of the trials. config: of one of them. loss: of a batch of one trial.
    """

    def __init__(
        self,
        heads: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        config: TrialConfig,
        loss: Loss,
    ) -> None:
        self.config, self._loss = config, loss
        self.size = len(heads)
        # Its own parameters are never used: those of a trial come with each call.
        self._template = copy.deepcopy(heads[0]).requires_grad_(False)
        self.parameters: dict[str, Tensor] = {}
        for name, _ in heads[0].named_parameters():
            rows = [head.get_parameter(name).detach() for head in heads]
            self.parameters[name] = torch.stack(rows).requires_grad_()
        self.optimizer = StackedOptimizer(config.optimizer, self.parameters, heads, optimizers)

    @property
    def is_small(self) -> bool:
        """Whether a step is so little work that dividing it among threads would cost more."""
        parameters = sum(parameter.numel() for parameter in self.parameters.values())
        return parameters * self.config.batch_size < SMALL_STEP

    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """Take one step of each trial on its own batch; return the mean losses (T,).

        features: (T, B, ...). labels: (T, B) or (T, B, L).
        """
        losses = vmap(self._loss_of)(self.parameters, features, labels)
        # A trial's loss hangs on its own row alone, so that the sum has the gradients of all.
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        if self.config.clip_norm is not None:
            gradients = clip_rows(gradients, self.config.clip_norm)
        self.optimizer.step(dict(zip(self.parameters, gradients, strict=True)))
        return losses.detach()

    @torch.no_grad()
    def logits(self, features: Tensor, device: torch.device) -> Tensor:
        """Logits (T, N, outputs) of every trial for the same features (N, ...)."""
        values = self.size * math.prod(features.shape[1:])
        parts = features.split(max(1, VALUES_AT_ONCE // values))
        every = vmap(self._logits, in_dims=(0, None))
        return torch.cat([every(self.parameters, part.to(device)) for part in parts], dim=1)

    def _logits(self, parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._template, parameters, (features,))
        return logits

    def _loss_of(self, parameters: dict[str, Tensor], features: Tensor, labels: Tensor) -> Tensor:
        return self._loss(self._logits(parameters, features), labels)


def train_stacked(trials: Sequence[Trial]) -> Iterator[tuple[Trial, Progress | TrialError]]:
    """Train the heads of trials of one `stack_key`, each from its own checkpoint on.

    The trials share the features (`FeatureSplit.whole`). Gives each trial with its progress when it is
    over, its head with its best weights, or with the error of one that diverged. The others go on.
    The numbers are those of a trial alone up to rounding. Raises Interrupted when asked to stop.
    """
    members = [Member(trial) for trial in trials]
    logger.info("%d heads train together", len(members))
    while True:
        for member in members:
            if member.is_over:
                yield member.trial, member.finish()
        members = [member for member in members if not member.is_over]
        if not members:
            return
        # After a kill some may be behind: these catch up first.
        epochs = sorted({member.progress.epoch for member in members})
        behind = [member for member in members if member.progress.epoch == epochs[0]]
        until = epochs[1] if len(epochs) > 1 else behind[0].length.epochs
        for member, error in _train_until(behind, until):
            yield member.trial, error
            members.remove(member)


def _train_until(members: Sequence[Member], epoch: int) -> list[tuple[Member, TrialError]]:
    """Train up to an epoch, or until a trial is over or has diverged; return those that have, with their error."""
    first = members[0].trial
    # Class weights go by how many images a class has, which is the same for all.
    loss = make_loss(first.config, first.task, first.train.labels.to(first.prepared.device))
    heads = [member.head for member in members]
    stack = Stack(heads, [member.optimizer for member in members], first.config, loss)
    with on_one_thread() if stack.is_small else contextlib.nullcontext():
        return _train_stack(stack, members, epoch)


def _train_stack(stack: Stack, members: Sequence[Member], epoch: int) -> list[tuple[Member, TrialError]]:
    """Train as `_train_until` says."""
    saved = time.monotonic()
    while True:
        rows = _train_to_evaluation(stack, members)
        diverged = []
        for member, row in zip(members, rows, strict=True):
            if isinstance(row, TrialError):
                diverged.append((member, row))
        # All that are left are at the same epoch.
        is_there = any(member.progress.epoch >= epoch for member in members)
        ends = bool(diverged) or is_there or any(member.is_over for member in members)
        checkpoint = ends or time.monotonic() - saved > CHECKPOINT_SECONDS
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
        if ends:
            return diverged


def _train_to_evaluation(stack: Stack, members: Sequence[Member]) -> list[EpochRow | TrialError]:
    """Train each trial to its next evaluation; return its row, or the error of a trial that diverged."""
    first, length = members[0].trial, members[0].length
    done = members[0].progress.epoch
    until = length.next_evaluation(done)
    started = time.perf_counter()
    losses = torch.zeros(len(members), device=first.prepared.device)
    images = 0
    for epoch in range(done, until):
        losses += take_steps(stack, members, epoch)
        images += min(len(first.train), (length.steps_at(epoch + 1) - length.steps_at(epoch)) * first.config.batch_size)
    means = (losses / images).tolist()
    # Each trial counts its share of the time, so that their sum is what was spent.
    train_seconds = (time.perf_counter() - started) / len(members)
    every_logits = stack.logits(first.val.images, first.prepared.device)
    rows: list[EpochRow | TrialError] = []
    for place, member in enumerate(members):
        loss, logits = means[place], every_logits[place]
        if not (math.isfinite(loss) and logits.isfinite().all()):
            lr = member.config.lr
            rows.append(TrialError(f"training diverged in epoch {until}: its loss is {loss}; lower lr={lr}"))
            continue
        scores = score_logits(logits, first.val.labels, first.task, final=False)
        row = EpochRow(
            epoch=until,
            train_loss=loss,
            val=dict(scores),
            lr=member.set_learning_rate(length.steps_at(until) - 1),
            seconds=train_seconds,
            images_per_second=images / train_seconds,
            peak_memory_bytes=peak_memory(first.prepared.device),
            step=length.steps_at(until),
            alarm=find_alarm(logits, first.val.labels, first.task, scores),
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


def take_steps(stack: Stack, members: Sequence[Member], epoch: int) -> Tensor:
    """Take the steps of one epoch, counted from 0; return the sum of the images' losses of each trial, (T,).

    Raises Interrupted when asked to stop.
    """
    first, length, config = members[0].trial, members[0].length, members[0].config
    device, whole = first.prepared.device, _whole_features(first.train)
    rows, labels = [], []
    for member in members:
        # As in a trial that trains alone.
        order = draw_order(member.trial, epoch)
        rows.append(member.trial.train.index[order.cpu()])
        labels.append(member.trial.train.labels[order.to(member.trial.train.labels.device)])
    every_row = torch.stack(rows).to(whole.device)
    every_label = torch.stack(labels).to(device)
    losses = torch.zeros(len(rows), device=device)
    first_step, last_step = length.steps_at(epoch), length.steps_at(epoch + 1)
    for number in range(first_step, last_step):
        if first.should_stop():
            raise Interrupted
        if number == first_step or _rates_move_by_step(members):
            for member in members:
                member.set_learning_rate(number)
            stack.optimizer.read_rates()
        start = (number - first_step) * config.batch_size
        batch = every_row[:, start : start + config.batch_size]
        features = whole[batch].to(device)  # (T, B, ...)
        losses += stack.step(features, every_label[:, start : start + config.batch_size]) * batch.shape[1]
    return losses


def _rates_move_by_step(members: Sequence[Member]) -> bool:
    """Whether a learning rate may change within an epoch."""
    for member in members:
        config = member.config
        if config.steps is not None or config.step_steps is not None or config.warmup_steps:
            return True
    return False


def clip_rows(gradients: Sequence[Tensor], norm: float) -> tuple[Tensor, ...]:
    """Shorten each trial's gradients (T, ...) to a norm of all its parameters together, as torch's clip_grad_norm_."""
    squares = [gradient.flatten(1).square().sum(1) for gradient in gradients]
    scale = (norm / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)
    return tuple(gradient * scale.view(-1, *(1,) * (gradient.ndim - 1)) for gradient in gradients)


def _whole_features(train: ResidentSplit) -> Tensor:
    """The features of all training images, of which each trial takes its own."""
    whole: Tensor = getattr(train, "whole", train.images)
    return whole
