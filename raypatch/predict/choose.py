"""Which trials of a run predict: the best of a dataset, or the best of each level, by validation."""

import math
import statistics
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
from raypatch.selection import goodness, prefer_level, select_best, selection_score
from raypatch.tasks import Metric, find_metric, find_task


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
    """The trials of a run that ran through, and what the run compares.

    levels: by trial id the trial's level of each factor. metric: that the study's answer is about;
    None for the task's own.
    """

    trials: tuple[FinishedTrial, ...]
    factors: tuple[Factor, ...]
    levels: dict[str, tuple[str | None, ...]]
    metric: str | None = None

    def at_level(self, factor: Factor, level: str) -> list[FinishedTrial]:
        """The trials that have a level of a factor."""
        position = self.factors.index(factor)
        having = []
        for trial in self.trials:
            levels = self.levels[trial.result.trial_id]
            if levels[position] == level:
                having.append(trial)
        return having


def find_trials(folder: Path, *, stages: bool = False) -> FinishedTrials:
    """The trials of a run folder that ran through. Raises ValueError when there are none.

    stages: also those that make weights and predict nothing.
    """
    found = []
    for paths in SweepPaths(folder).trial_folders():
        result = read_result(paths.result)
        if result is None or result.status != "ok":
            continue
        # A trial that ran through has both, but a file says so only to a reader, not to its type.
        if result.dataset is not None and result.model is not None:
            config = read_config(paths.config)
            if config.makes_weights and not stages:
                continue
            found.append(FinishedTrial(config, paths, result, result.dataset, result.model))
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
    metric = None
    if sweep.record.exists():
        record = read_sweep(sweep.record)
        factors = tuple(widen(factor, configs) for factor in record.factors)
        recorded = record.levels
        metric = record.metric
    # A run of schema 1 names no factor: it is about patch size.
    if not factors:
        patch_sizes = [config.patch_size for config in configs]
        factors = (factor_of_field("patch_size", patch_sizes),)
    levels: dict[str, tuple[str | None, ...]] = {}
    for trial in trials:
        trial_id = trial.result.trial_id
        # Of named levels that set the same fields, only the record knows which one was meant.
        by_fields = tuple(factor.level_of(trial.config) for factor in factors)
        levels[trial_id] = recorded.get(trial_id) or by_fields
    return FinishedTrials(tuple(trials), factors, levels, metric)


def choose_members(
    found: FinishedTrials,
    dataset: str | None,
    levels: Sequence[str] | None,
) -> list[FinishedTrial]:
    """The trial that the report's answer is about, or one of each level, of the same seed.

    Without levels: the level, of each factor, whose mean validation score over the seeds is best, as
    a report chooses it, and of its seeds the best by the trials' own `selection`. With levels: of
    the seeds that have them all the one whose members are best by `selection` on average, as an
    ensemble of the report has members of one seed. Of several recipes of a level the one that the
    report takes.

    dataset: a name, or of an own file the name it has in the trials, file:STEM@CONTENT, or its stem
    alone. levels: as a user writes them, FACTOR=LEVEL where the run compares several factors.
    Raises ValueError where a trial is missing, or several files or selections are in question.
    """
    wanted = choose_dataset(found.trials, dataset)
    of_dataset = _on_dataset(found.trials, wanted)
    selections = sorted({trial.config.selection for trial in of_dataset})
    if len(selections) > 1:
        scores = " and ".join(selections)
        raise ValueError(f"the trials of {wanted} were selected by {scores}: none is best of all")
    if levels is None:
        return [_best(best_level(found, of_dataset))]
    by_level = []
    for text in levels:
        factor, level = _parse_level(found.factors, text)
        candidates = _on_dataset(found.at_level(factor, level), wanted)
        if not candidates:
            label = of_dataset[0].config.dataset_label
            raise ValueError(f"no finished trial of {label} has {factor.phrase(level)}")
        by_level.append(best_level(found, candidates))
    return of_one_seed(by_level)


def of_one_seed(by_level: Sequence[Sequence[FinishedTrial]]) -> list[FinishedTrial]:
    """One trial of each level, all of the seed that has them all and is best on average."""
    seeds = []
    for trials in by_level:
        seeds.append({trial.config.seed: trial for trial in trials})
    common = sorted(set(seeds[0]).intersection(*seeds[1:]))
    if not common:
        listed = "; ".join(
            f"{trials[0].result.trial_id}: seeds {sorted(found)}" for trials, found in zip(by_level, seeds, strict=True)
        )
        raise ValueError(
            f"no seed has finished at all of these levels ({listed}); the report scores ensembles of one seed:"
            " run a further seed of one of them"
        )
    # max takes the first of equals, as everywhere.
    best = max(common, key=lambda seed: sum(_goodness(found[seed]) for found in seeds))
    return [found[best] for found in seeds]


def best_level(found: FinishedTrials, trials: Sequence[FinishedTrial]) -> list[FinishedTrial]:
    """The trials of the level, of all factors, that the report's rule prefers; of one recipe, by seed."""
    by_level: dict[str, list[FinishedTrial]] = {}
    for trial in trials:
        levels = found.levels[trial.result.trial_id]
        by_level.setdefault(", ".join(map(str, levels)), []).append(trial)
    metric = headline_metric(found, trials)
    recipes, scores, costs = {}, {}, {}
    for level, of_level in by_level.items():
        recipe = _preferred_recipe(of_level)
        recipes[level] = recipe
        scores[level] = statistics.fmean(_score(trial, metric.name) for trial in recipe)
        costs[level] = statistics.fmean(trial.model.gflops for trial in recipe)
    return recipes[prefer_level(scores, costs, lower_is_better=metric.lower_is_better)]


def headline_metric(found: FinishedTrials, trials: Sequence[FinishedTrial]) -> Metric:
    """The score that the report's answer is about: the study's, else the task's own."""
    task = trials[0].dataset.task
    return find_metric(found.metric or find_task(task).default_metric, task)


def _preferred_recipe(trials: Sequence[FinishedTrial]) -> list[FinishedTrial]:
    """The trials that differ in the seed alone: of several such, most seeds, then the best mean by `selection`."""
    recipes: dict[TrialConfig, list[FinishedTrial]] = {}
    for trial in trials:
        recipes.setdefault(trial.config.model_copy(update={"seed": 0}), []).append(trial)

    def standing(recipe: list[FinishedTrial]) -> tuple[int, float]:
        return len(recipe), statistics.fmean(map(_goodness, recipe))

    preferred = max(recipes.values(), key=standing)
    return sorted(preferred, key=lambda trial: trial.config.seed)


def _score(trial: FinishedTrial, metric: str) -> float:
    return (trial.result.val or {}).get(metric, math.nan)


def _goodness(trial: FinishedTrial) -> float:
    score = selection_score(trial.config, trial.result)
    return goodness(trial.config.selection, score, trial.config.task)


def describe_choice(folder: Path, trial_ids: Sequence[str]) -> str:
    """Say by which rule these trials of a run were chosen."""
    found = find_trials(folder)
    members = [trial for trial in found.trials if trial.result.trial_id in trial_ids]
    first = members[0].config
    score = first.selection.replace("_", " ")
    if len(trial_ids) > 1:
        return f"of the seeds that have all of these, {first.seed} is the best by {score}"
    metric = headline_metric(found, members)
    return (
        f"its level has the best mean {metric.label} on validation, as in the report;"
        f" of its seeds, {first.seed} is the best by {score}"
    )


def seeds_of(trial: FinishedTrial, found: FinishedTrials) -> list[FinishedTrial]:
    """The trials that differ from a trial in nothing but the seed, itself included, by seed."""
    wanted = trial.config.model_copy(update={"seed": 0})
    alike = [other for other in found.trials if other.config.model_copy(update={"seed": 0}) == wanted]
    return sorted(alike, key=lambda other: other.config.seed)


def _on_dataset(trials: Sequence[FinishedTrial], dataset: str) -> list[FinishedTrial]:
    """The trials of one dataset, by its name in their configs."""
    return [trial for trial in trials if trial.config.dataset == dataset]


def choose_dataset(trials: Sequence[FinishedTrial], dataset: str | None) -> str:
    """The dataset that a user means, by its name in the configs; the only one where none is named."""
    labels: dict[str, str] = {}
    for trial in trials:
        labels[trial.config.dataset] = trial.config.dataset_label
    asked = dataset
    # A name of the run's own comes first: an own file's stem is no name of the catalog.
    if dataset is not None and dataset not in {*labels, *labels.values()}:
        asked = canonical_name(dataset)
    fit = []
    for name, label in sorted(labels.items()):
        if asked in (None, name, label):
            fit.append(name)
    if not fit:
        there_are = ", ".join(sorted(labels.values()))
        raise ValueError(f"the run has no finished trial of {asked}; it has {there_are}")
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
    for factor in factors:
        if separator and name.strip() in (factor.name, factor.label):
            return factor, factor.parse(level)
    # No factor is named, or the = belongs to the level: look for one that has such a level.
    wanted = text.strip().lower()
    fitting = []
    for factor in factors:
        if wanted in map(str.lower, factor.names):
            fitting.append(factor)
    if len(fitting) > 1:
        ways = " or ".join(f"{factor.name}={text}" for factor in fitting)
        raise ValueError(f"{text} is a level of several factors: say {ways}")
    # Of a single factor, parse knows more ways to say a level, and which levels there are.
    if fitting or len(factors) == 1:
        factor = fitting[0] if fitting else factors[0]
        return factor, factor.parse(text)
    known = "; ".join(f"{factor.label}: {', '.join(factor.names)}" for factor in factors)
    raise ValueError(f"{text.strip()!r} is no level of this run; it has {known}")


def _best(trials: Sequence[FinishedTrial]) -> FinishedTrial:
    """The best by validation, the first of equals; the first where none has a defined score."""
    scored = []
    for trial in trials:
        scored.append((trial.config, selection_score(trial.config, trial.result)))
    best = select_best(scored)
    for trial in trials:
        if trial.config == best:
            return trial
    return trials[0]
