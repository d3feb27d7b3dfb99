"""One group of a search as an Optuna study: what to try next, which trial to give up."""

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from raypatch.config import TrialConfig, make_config
from raypatch.results import EpochRow, TrialResult
from raypatch.search_settings import SearchSettings
from raypatch.selection import goodness, lower_is_better, selection_score
from raypatch.training.checkpoints.checkpoint import Progress
from raypatch.training.progress import advance

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class _Entry:
    """A trial.

    goal: the epoch up to which it may run as things stand; once it is over, the epochs that it took.
    """

    config: TrialConfig
    trial: optuna.Trial
    goal: int
    progress: Progress = field(default_factory=Progress)


class SearchGroup:
    """The trials of one group, in the order of drawing, and the Optuna study that knows their scores.

    A trial's score after an epoch is its best selection score so far: the one its kept weights
    have. The group knows nothing of the disk. base: a trial of the group, in which the searched
    fields are still open. label: the group's name, on which its draws depend. best: the trial with
    the best score among those that ran through, and that score.
    """

    def __init__(
        self,
        base: TrialConfig,
        label: str,
        settings: SearchSettings,
        storage: optuna.storages.BaseStorage | None,
    ) -> None:
        self.base, self.label, self.settings = base, label, settings
        self.entries: dict[str, _Entry] = {}
        self.best: tuple[TrialConfig, float] | None = None
        self._rungs = settings.rungs(base.epochs)
        self._distributions = {}
        for name, searched in settings.fields.items():
            self._distributions[name] = searched.to_optuna()
        direction: Literal["minimize", "maximize"] = "maximize"
        if lower_is_better(base.selection):
            direction = "minimize"
        self._study = optuna.create_study(
            storage=storage,
            study_name=label,
            direction=direction,
            pruner=make_pruner(settings, base.epochs),
        )

    @property
    def undrawn(self) -> int:
        """How many samples are still to be drawn."""
        return max(0, self.settings.samples - len(self.entries))

    def config_of(self, trial_id: str) -> TrialConfig:
        """A trial that this group drew."""
        return self.entries[trial_id].config

    def enter(self, config: TrialConfig) -> None:
        """Take up a trial that was drawn in an earlier session."""
        values = {}
        for name, searched in self.settings.fields.items():
            values[name] = searched.drawn(name, config)
        # Optuna takes no trial as running from outside: it is told what to draw next.
        self._study.enqueue_trial(values)
        self._add(config, self._study.ask(self._distributions))

    def draw(self) -> TrialConfig:
        """Return a new trial.

        It depends on the seed, the group, the sample's number and the scores known now, and on
        nothing else.
        """
        for attempt in itertools.count():
            self._study.sampler = self._sampler(attempt)
            trial = self._study.ask(self._distributions)
            config = make_config(self.base.model_dump() | self._fields(trial.params))
            if config.trial_id() not in self.entries:
                break
            # Drawn before, as happens among few choices: another try, with another seed.
            self._study.tell(trial, state=TrialState.FAIL)
        self._add(config, trial)
        return config

    def _fields(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """The fields of a trial that the drawn values set."""
        fields: dict[str, Any] = {}
        for name, value in drawn.items():
            fields |= self.settings.fields[name].fields(name, value)
        return fields

    def report(self, trial_id: str, row: EpochRow) -> bool:
        """Take a trial's epoch; say whether to give the trial up.

        An epoch that is repeated after a crash was judged before and is not judged again. The
        last epoch is never a reason to give up: there is nothing left to save.
        """
        entry = self.entries[trial_id]
        if row.epoch <= entry.progress.epoch:
            return False
        entry.progress = advance(entry.progress, row, entry.config)
        assert entry.progress.best_figure is not None
        entry.trial.report(entry.progress.best_figure, row.epoch)
        if row.epoch == entry.config.epochs:
            return False
        # Optuna is asked first: only a trial that it keeps takes more of the budget.
        return entry.trial.should_prune() or not self._may_pass(entry, row.epoch)

    def tell(self, result: TrialResult) -> None:
        """Take the end of a trial. A failed one counts as a sample, without a score."""
        entry = self.entries[result.trial_id]
        entry.goal = entry.progress.epoch
        trial = entry.trial
        score = selection_score(self.base, result)
        if result.status == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        elif score is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, score)
            self._note_best(entry.config, score)

    def _note_best(self, config: TrialConfig, score: float) -> None:
        selection = self.base.selection
        if self.best is None or goodness(selection, score) > goodness(selection, self.best[1]):
            self.best = config, score

    def _add(self, config: TrialConfig, trial: optuna.Trial) -> None:
        trial.set_user_attr("trial_id", config.trial_id())
        self.entries[config.trial_id()] = _Entry(config, trial, self._rungs[0])

    def _may_pass(self, entry: _Entry, epoch: int) -> bool:
        """Whether the budget lets a trial go on after `epoch`.

        At a rung it does only if the way to the next one fits in.
        """
        if epoch < entry.goal or self.settings.pruner == "none":
            return True
        goal = next(rung for rung in self._rungs if rung > epoch)
        # What the others are still allowed to run counts as spent. So the budget holds, whoever
        # is faster.
        others = [other.goal for other in self.entries.values() if other is not entry]
        planned = goal + sum(others) + self.undrawn * self._rungs[0]
        budget = self.settings.budget * self.settings.samples * self.base.epochs
        is_farthest = max(others, default=0) <= epoch
        # One trial runs through in any case.
        if planned <= budget or is_farthest:
            entry.goal = goal
        return entry.goal > epoch

    def _sampler(self, attempt: int) -> optuna.samplers.BaseSampler:
        text = f"{self.base.seed}/{self.label}/{len(self.entries)}/{attempt}"
        # Python's own hash of a text is another one in each process.
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        # After a double, TPE would suggest much the same again: a random draw gets away from it.
        if self.settings.sampler == "random" or attempt:
            return optuna.samplers.RandomSampler(seed=seed)
        startup = max(4, self.settings.samples // 4)
        # constant_liar: trials that still run count as bad, so that others are drawn elsewhere.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)


def make_pruner(settings: SearchSettings, epochs: int) -> optuna.pruners.BasePruner:
    """Return what gives trials up.

    asha: asynchronous successive halving (Li et al., MLSys 2020), rungs at grace_epochs x
    reduction^k. hyperband: several of those with longer and longer grace (Li et al., JMLR 2018).
    median: worse than the median of the others at the same epoch (Golovin et al., KDD 2017).
    """
    grace, reduction = settings.grace_epochs, settings.reduction
    if settings.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=reduction)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=grace,
            max_resource=epochs,
            reduction_factor=reduction,
        )
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=grace)
    return optuna.pruners.NopPruner()
