"""Which trials of a run predict: the best of a dataset, or the best of each level, by validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raypatch.config import TrialConfig
from raypatch.data.catalog import canonical_name
from raypatch.factors import Factor, factor_of_field, widen
from raypatch.results import (
    DatasetFacts,
    ModelFacts,
    SweepPaths,
    TrialPaths,
    TrialResult,
    read_config,
    read_result,
    read_sweep,
)
from raypatch.selection import select_best, selection_score


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that ran through, with what its result says of it."""

    config: TrialConfig
    paths: TrialPaths
    result: TrialResult
    dataset: DatasetFacts
    model: ModelFacts


@dataclass(frozen=True)
class FinishedTrials:
    """The trials of a run that ran through, and what the run compares; levels:
    by trial id, of each factor.
    """

    trials: tuple[FinishedTrial, ...]
    factors: tuple[Factor, ...]
    levels: dict[str, tuple[str | None, ...]]

    def at_level(self, factor: Factor, level: str) -> list[FinishedTrial]:
        """The trials that have a level of a factor."""
        place = self.factors.index(factor)
        return [trial for trial in self.trials if self.levels[trial.result.trial_id][place] == level]


def find_trials(folder: Path) -> FinishedTrials:
    """The trials of a run folder that ran through. Raises ValueError when there are none."""
    found = []
    for paths in SweepPaths(folder).trial_folders():
        result = read_result(paths.result)
        if result is not None and result.status == "ok" and result.dataset is not None and result.model is not None:
            found.append(FinishedTrial(read_config(paths.config), paths, result, result.dataset, result.model))
    if not found:
        raise ValueError(
            f"{folder} has no finished trial; give a folder in which `raypatch run` finished some",
        )
    return _with_levels(SweepPaths(folder), found)


def _with_levels(sweep: SweepPaths, trials: Sequence[FinishedTrial]) -> FinishedTrials:
    """The trials with the levels that the sweep's record gives them;
    those of earlier commands by their fields.
    """
    configs = [trial.config for trial in trials]
    factors: tuple[Factor, ...] = ()
    recorded: dict[str, tuple[str, ...]] = {}
    if sweep.record.exists():
        record = read_sweep(sweep.record)
        factors = tuple(widen(factor, configs) for factor in record.factors)
        recorded = record.levels
    if not factors:  # a run of schema 1 is about patch size
        factors = (factor_of_field("patch_size", [config.patch_size for config in configs]),)
    levels: dict[str, tuple[str | None, ...]] = {}
    for trial in trials:
        trial_id = trial.result.trial_id
        known = recorded.get(trial_id)
        levels[trial_id] = known or tuple(factor.level_of(trial.config) for factor in factors)
    return FinishedTrials(tuple(trials), factors, levels)


def choose_members(
    found: FinishedTrials,
    dataset: str | None,
    levels: Sequence[str] | None,
) -> list[FinishedTrial]:
    """The best trial of each level, or of all, by validation.

    dataset: a name, or of an own file the name it has in the trials, file:STEM@CONTENT, or its stem
    alone. levels: as a user writes them, FACTOR=LEVEL where the run compares several factors.
    Raises ValueError where a trial is missing, or several files or selections are in question.
    """
    wanted = _choose_dataset(found.trials, dataset)
    of_dataset = [trial for trial in found.trials if trial.config.dataset == wanted]
    selections = sorted({trial.config.selection for trial in of_dataset})
    if len(selections) > 1:
        raise ValueError(
            f"the trials of {wanted} were selected by {' and '.join(selections)}: none is best of all",
        )
    if levels is None:
        return [_best(of_dataset)]
    members = []
    for text in levels:
        factor, level = _parse_level(found.factors, text)
        candidates = [trial for trial in found.at_level(factor, level) if trial.config.dataset == wanted]
        if not candidates:
            raise ValueError(
                f"no finished trial of {of_dataset[0].config.dataset_label} has {factor.phrase(level)}",
            )
        members.append(_best(candidates))
    return members


def _choose_dataset(trials: Sequence[FinishedTrial], dataset: str | None) -> str:
    labels: dict[str, str] = {trial.config.dataset: trial.config.dataset_label for trial in trials}
    known = {*labels, *labels.values()}
    asked = dataset if dataset is None or dataset in known else canonical_name(dataset)
    fit = sorted(name for name, label in labels.items() if asked in (None, name, label))
    if not fit:
        raise ValueError(
            f"the run has no finished trial of {asked}; it has {', '.join(sorted(labels.values()))}",
        )
    if len(fit) > 1:
        raise ValueError(
            f"the run has several such datasets; choose one with --dataset: {', '.join(fit)}",
        )
    return fit[0]


def _parse_level(factors: Sequence[Factor], text: str) -> tuple[Factor, str]:
    """The factor and its level that a user means: LEVEL, or FACTOR=LEVEL.
    Raises ValueError with those there are.
    """
    name, separator, level = text.partition("=")
    named = [factor for factor in factors if separator and name.strip() in (factor.name, factor.label)]
    if named:
        return named[0], named[0].parse(level)
    fitting = []
    for factor in factors:
        if text.strip().lower() in [level.lower() for level in factor.names]:
            fitting.append(factor)
    if len(fitting) > 1:
        ways = " or ".join(f"{factor.name}={text}" for factor in fitting)
        raise ValueError(f"{text} is a level of several factors: say {ways}")
    if fitting or len(factors) == 1:
        factor = fitting[0] if fitting else factors[0]
        return factor, factor.parse(text)
    known = "; ".join(f"{factor.label}: {', '.join(factor.names)}" for factor in factors)
    raise ValueError(f"{text.strip()!r} is no level of this run; it has {known}")


def _best(trials: Sequence[FinishedTrial]) -> FinishedTrial:
    """The best by validation, the first of equals; the first where none has a defined score."""
    best = select_best((trial.config, selection_score(trial.config, trial.result)) for trial in trials)
    for trial in trials:
        if trial.config == best:
            return trial
    return trials[0]
