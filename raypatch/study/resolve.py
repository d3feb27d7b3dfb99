"""A study resolved to its trials, or to the groups of a search: with factors, levels and own files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypatch.config import TrialConfig
from raypatch.factors import Factor, Level, factor_of_axis, factor_of_field
from raypatch.search_settings import Search, SearchedField, SearchSettings
from raypatch.study import Study
from raypatch.study.budget import fit_budget
from raypatch.study.points import StudyPoints


@dataclass(frozen=True)
class StudyTrials:
    """What a study comes to.

    trials: without repeats. factors: what is compared. levels: by trial id its level of each
    factor. files: where own files lie, by their content's name. stages: the trials that make weights for
    these; they are no levels.
    """

    trials: tuple[TrialConfig, ...]
    factors: tuple[Factor, ...]
    levels: dict[str, tuple[str, ...]]
    files: dict[str, Path]
    stages: tuple[TrialConfig, ...] = ()

    @property
    def planned(self) -> tuple[TrialConfig, ...]:
        """All that runs, what makes weights first."""
        return (*self.stages, *self.trials)


@dataclass(frozen=True)
class StudySearch:
    """What a study with a search comes to.

    search: its groups and how they are searched. factors: what tells the groups apart. files: where
    own files lie, by their content's name.
    """

    search: Search
    factors: tuple[Factor, ...]
    files: dict[str, Path]


def resolve_trials(study: Study) -> StudyTrials:
    """Resolve a study to its trials. Raises ValueError for a wrong field, value, level or file."""
    resolver = StudyPoints(study)
    trials: dict[str, TrialConfig] = {}
    named: dict[str, dict[str, str]] = {}
    # Two points may be one trial, where a rule or an alias makes them alike: it runs once.
    for config, names in resolver.points():
        trial_id = config.trial_id()
        _require_same_levels(config, names, named.get(trial_id, {}))
        trials[trial_id] = config
        named[trial_id] = names
    if not trials:
        raise ValueError(
            f"the search space {study.name!r} skips all of these trials; see its when-rules",
        )
    configs = tuple(trials.values())
    factors = tuple(resolver.factor(name, configs) for name in study.compared)
    levels: dict[str, tuple[str, ...]] = {}
    for trial_id, config in trials.items():
        levels[trial_id] = _levels_of(config, factors, named[trial_id])
    stages = tuple(resolver.stages.values())
    return StudyTrials(configs, factors, levels, resolver.files_of((*stages, *configs)), stages)


def _require_same_levels(config: TrialConfig, names: Mapping[str, str], earlier: Mapping[str, str]) -> None:
    """Raise ValueError where a trial was met before under another level: it cannot count for both."""
    for axis, level in names.items():
        other = earlier.get(axis, level)
        if other != level:
            raise ValueError(
                f"the levels {other} and {level} of {axis} are the same trial"
                f" for {config.dataset_label}; give them fields that differ"
            )


def resolve_search(study: Study) -> StudySearch:
    """Resolve a study with a search to its groups.

    Raises ValueError for a wrong field, value, range or file.
    """
    assert study.search is not None
    settings = study.search
    plain = study.model_copy(update={"search": None})
    files: dict[str, Path] = {}
    ends: dict[str, list[Any]] = {}
    first_ends: dict[str, list[Any]] = {}
    for name, field in settings.fields.items():
        ends[name] = list(field.ends)
        first_ends[name] = ends[name][:1]
    for name, values in ends.items():
        # Every end or choice of one field, the others at their first value: not the product of all,
        # and yet each value that a draw may hold has been valid once.
        varied = first_ends | {name: values}
        found = resolve_trials(_with_values(plain, settings, varied))
        files |= found.files
        settings = _canonical_choice(settings, name, found.trials)
    first = resolve_trials(_with_values(plain, settings, first_ends))
    _check_groups(first.trials, settings)
    settings = fit_budget(settings, [group.epochs for group in first.trials])
    factors = tuple(searched_factor(factor, settings) for factor in first.factors)
    names = tuple(_group_name(group, factors, settings) for group in first.trials)
    search = Search(settings=settings, groups=first.trials, names=names)
    return StudySearch(search, factors, files)


def _check_groups(groups: Sequence[TrialConfig], settings: SearchSettings) -> None:
    """Raise ValueError for a trial shorter than its grace, and for several seeds."""
    for group in groups:
        if group.steps is not None:
            raise ValueError(f"steps={group.steps}: a search judges and saves by epochs; give these")
        if settings.grace_epochs > group.epochs:
            raise ValueError(
                f"grace_epochs={settings.grace_epochs} must be at most epochs={group.epochs}",
            )
    seeds = sorted({group.seed for group in groups})
    if len(seeds) > 1:
        given = ", ".join(map(str, seeds))
        raise ValueError(f"a search has one seed, not {given}: a lucky one is no recipe")


def _levels_of(
    config: TrialConfig,
    factors: Sequence[Factor],
    named: Mapping[str, str],
) -> tuple[str, ...]:
    """The level that a trial has of each factor: of a named axis the one it was made from."""
    levels = []
    for factor in factors:
        level = named.get(factor.name) or factor.level_of(config)
        assert level is not None, "a field's levels come from the trials"
        levels.append(level)
    return tuple(levels)


def _with_values(
    study: Study,
    settings: SearchSettings,
    values: Mapping[str, Sequence[Any]],
) -> Study:
    """The study with searched fields at these values;
    a searched set of named levels is an axis of these again.
    """
    lists: dict[str, Sequence[Any]] = {}
    grid = dict(study.grid)
    for name, given in values.items():
        levels = settings.fields[name].levels
        if levels is None:
            lists[name] = given
        else:
            grid[name] = {level: levels[level] for level in given}
    # The axes first: a study must know what it compares when a field of it changes.
    return study.model_copy(update={"grid": grid}).override(lists)


def _canonical_choice(
    settings: SearchSettings,
    name: str,
    trials: Sequence[TrialConfig],
) -> SearchSettings:
    """The settings with the choices or levels of a field as a TrialConfig names them.

    trials: one or more of each choice or level, in their order.
    """
    searched = settings.fields[name]
    if searched.choice:
        # A dict keeps the order in which values come first, which a set would lose.
        distinct = dict.fromkeys(getattr(config, name) for config in trials)
        canonical = SearchedField(choice=tuple(distinct))
    elif searched.levels:
        canonical = SearchedField(levels=_canonical_levels(name, searched, trials))
    else:
        return settings
    return settings.model_copy(update={"fields": settings.fields | {name: canonical}})


def _canonical_levels(name: str, searched: SearchedField, trials: Sequence[TrialConfig]) -> dict[str, dict[str, Any]]:
    """The fields of each searched level as a TrialConfig has them."""
    assert searched.levels is not None
    # Any level names them all: see SearchedField.
    fields = list(searched.fields(name, searched.ends[0]))
    distinct: list[dict[str, Any]] = []
    for config in trials:
        values = {field: getattr(config, field) for field in fields}
        if values not in distinct:
            distinct.append(values)
    if len(distinct) < len(searched.levels):
        raise ValueError(f"two levels of {name} are the same trial; give them fields that differ")
    return dict(zip(searched.levels, distinct, strict=True))


def searched_factor(factor: Factor, settings: SearchSettings) -> Factor:
    """The factor with all its levels where it is searched: the groups show the first one alone."""
    searched = settings.fields.get(factor.name)
    if searched is None:
        return factor
    if searched.levels is not None:
        return factor_of_axis(factor.name, searched.levels)
    if searched.choice is not None:
        return factor_of_field(factor.name, searched.choice)
    # A range has no levels to list: one that sets nothing stands for all that is drawn from it.
    drawn = Level(name="searched", fields={})
    return Factor(name=factor.name, levels=(drawn,), baseline=drawn.name)


def _group_name(group: TrialConfig, factors: Sequence[Factor], settings: SearchSettings) -> str:
    """A name for a group: its dataset and its levels of the factors that are not searched."""
    parts = [group.dataset_label]
    for factor in factors:
        if factor.name in settings.fields:
            continue
        level = factor.level_of(group) or ""
        parts.append(f"p{level}" if factor.name == "patch_size" else level)
    return "-".join(parts)
