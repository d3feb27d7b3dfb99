"""A study resolved: its explicit trials, the level that each has of every factor,
the own files that they name.
"""

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypatch.config import TrialConfig, make_config
from raypatch.data.catalog import DatasetInfo, canonical_name
from raypatch.data.source import describe
from raypatch.factors import Factor, Level, factor_of_axis, factor_of_field
from raypatch.methods import check_method
from raypatch.search_settings import Search, SearchedField, SearchSettings
from raypatch.storage.own_files import OWN_FILE, own_file_id
from raypatch.study import FACTS, Study, WhenRule, as_list, typed_value
from raypatch.tasks import find_task, score_names

_DEFAULTS = {name: field.default for name, field in TrialConfig.model_fields.items() if not field.is_required()}
_SUFFIXES = {"dataset": (".npz",), "weights": (".safetensors", ".pth", ".pt", ".bin", ".ckpt")}
"""Fields that may name an own file, and how such a file's name ends."""


@dataclass(frozen=True)
class StudyTrials:
    """What a study comes to.

    trials: without repeats. factors: what is compared. levels: by trial id its level of each
    factor. files: where own files lie, by their content's name.
    """

    trials: tuple[TrialConfig, ...]
    factors: tuple[Factor, ...]
    levels: dict[str, tuple[str, ...]]
    files: dict[str, Path]


@dataclass(frozen=True)
class StudySearch:
    """What a study with a search comes to: its groups,
    the factors that tell these apart, own files.
    """

    search: Search
    factors: tuple[Factor, ...]
    files: dict[str, Path]


def resolve_trials(study: Study) -> StudyTrials:
    """Resolve a study to its trials. Raises ValueError for a wrong field, value, level or file."""
    resolver = _Resolver(study)
    trials: dict[str, TrialConfig] = {}
    named: dict[str, dict[str, str]] = {}
    for config, names in resolver.points():
        trial_id = config.trial_id()
        for axis, level in names.items():
            other = named.get(trial_id, {}).get(axis, level)
            if other != level:
                raise ValueError(
                    f"the levels {other} and {level} of {axis} are the same trial for {config.dataset_label};"
                    " give them fields that differ"
                )
        trials[trial_id] = config
        named[trial_id] = names
    if not trials:
        raise ValueError(
            f"the search space {study.name!r} skips all of these trials; see its when-rules",
        )
    configs = tuple(trials.values())
    factors = tuple(resolver.factor(name, configs) for name in study.compared)
    levels = {trial_id: _levels_of(config, factors, named[trial_id]) for trial_id, config in trials.items()}
    return StudyTrials(configs, factors, levels, resolver.files_of(configs))


def resolve_search(study: Study) -> StudySearch:
    """Resolve a study with a search to its groups.

    Raises ValueError for a wrong field, value, range or file.
    """
    assert study.search is not None
    settings = study.search
    plain = study.model_copy(update={"search": None})
    files: dict[str, Path] = {}
    ends = {name: list(field.ends) for name, field in settings.fields.items()}
    for name, values in ends.items():
        # Every end or choice of one field, the others at their first value: what must be valid for all draws to be.
        others = {other: [given[0]] for other, given in ends.items() if other != name}
        found = resolve_trials(_with_values(plain, settings, others | {name: values}))
        files |= found.files
        settings = _canonical_choice(settings, name, found.trials)
    first = resolve_trials(_with_values(plain, settings, {name: values[:1] for name, values in ends.items()}))
    groups = first.trials
    for group in groups:
        if settings.grace_epochs > group.epochs:
            raise ValueError(
                f"grace_epochs={settings.grace_epochs} must be at most epochs={group.epochs}",
            )
    if len(seeds := {group.seed for group in groups}) > 1:
        raise ValueError(
            f"a search has one seed, not {', '.join(map(str, sorted(seeds)))}: a lucky one is no recipe",
        )
    factors = tuple(searched_factor(factor, settings) for factor in first.factors)
    names = tuple(_group_name(group, factors, settings) for group in groups)
    return StudySearch(Search(settings=settings, groups=groups, names=names), factors, files)


class _Resolver:
    """The points of a study's grid, with what was found about datasets and own files on the way."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._files: dict[str, Path] = {}
        self._infos: dict[str, DatasetInfo] = {}
        self._rules = [self._canonical_rule(rule) for rule in study.when]

    def points(self) -> Iterator[tuple[TrialConfig, dict[str, str]]]:
        """Yield each trial that no rule skips, and by axis of named levels the level's name."""
        axes = {name: list(axis) for name, axis in self.study.grid.items()}
        for point in itertools.product(*axes.values()):
            axis_values: dict[str, Any] = {}
            names: dict[str, str] = {}
            for name, value in zip(axes, point, strict=True):
                axis = self.study.grid[name]
                if isinstance(axis, dict):
                    axis_values |= axis[value]
                    names[name] = value
                else:
                    axis_values[name] = value
            config = self._config(axis_values)
            if config is not None:
                yield config, names

    def factor(self, name: str, configs: Sequence[TrialConfig]) -> Factor:
        """Return the factor `name` of these trials.

        Raises ValueError for a baseline that is no level.
        """
        axis = self.study.grid.get(name)
        baseline = self.study.baseline.get(name)
        if isinstance(axis, dict):
            factor = factor_of_axis(name, {level: self._by_content(fields) for level, fields in axis.items()})
            wanted = None if baseline is None else str(baseline)
        else:
            factor = factor_of_field(name, [getattr(config, name) for config in configs])
            wanted = None if baseline is None else self._level_of_value(factor, baseline)
        if wanted is None:
            return factor
        if wanted not in factor.names:
            known = [] if axis is None else [str(level) for level in axis]
            if wanted in known:  # the command line narrowed the study to other levels
                return factor
            raise ValueError(
                f"baseline: {baseline} is no level of {name}; it has {', '.join(factor.names)}",
            )
        return factor.model_copy(update={"baseline": wanted})

    def files_of(self, configs: Sequence[TrialConfig]) -> dict[str, Path]:
        """Where the own files lie that these trials name."""
        used = {name for config in configs for name in (config.dataset, config.weights)}
        return {name: path for name, path in self._files.items() if name in used}

    def _level_of_value(self, factor: Factor, value: Any) -> str:
        wanted = typed_value(factor.name, self._by_content({factor.name: value})[factor.name])
        for level in factor.levels:
            if level.fields[factor.name] == wanted:
                return level.name
        return str(value)

    def _config(self, axis_values: Mapping[str, Any]) -> TrialConfig | None:
        """The trial at a point of the grid; None where a rule skips it."""
        values = self._by_content({**self.study.fixed, **axis_values})
        if "dataset" not in values:
            raise ValueError(
                f"the search space {self.study.name!r} names no dataset; give --dataset",
            )
        info = self._describe(str(values["dataset"]))
        values["dataset"] = info.name
        facts = {"dimensions": info.dimensions, "task": info.task, "channels": info.channels}
        skipped = False
        for rule in self._rules:
            if rule.holds(_DEFAULTS | {"image_size": info.size} | values | facts):
                skipped = skipped or rule.skip
                new = self._by_content(rule.values)
                values |= {key: value for key, value in new.items() if key not in axis_values}
        if skipped:
            return None
        values.setdefault("image_size", info.size)
        config = make_config(values)
        check_fit(config, info)
        return config

    def _canonical_rule(self, rule: WhenRule) -> WhenRule:
        """A when-rule with datasets and own files as a TrialConfig names them.

        Raises ValueError for a dataset or a fact that there is not: such a rule would never hold.
        """
        condition = {}
        for key, want in rule.condition.items():
            values = [self._by_content({key: each})[key] for each in as_list(want)]
            if key == "dataset":
                values = [each if OWN_FILE.fullmatch(str(each)) else canonical_name(str(each)) for each in values]
            for each in values:
                if key in FACTS and each not in FACTS[key]:
                    raise ValueError(
                        f"when-rule: {key} is one of {', '.join(map(str, FACTS[key]))}, never {each!r}",
                    )
            condition[key] = values
        return rule.model_copy(update={"condition": condition})

    def _by_content(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the path of an own file by its content's name and note where it lies."""
        named = dict(values)
        for field, suffixes in _SUFFIXES.items():
            value = named.get(field)
            if isinstance(value, str) and not OWN_FILE.fullmatch(value) and value.endswith(suffixes):
                path = Path(value).expanduser().resolve()
                known = next((name for name, place in self._files.items() if place == path), None)
                identity = known or own_file_id(path)
                named[field] = identity
                self._files[identity] = path
        return named

    def _describe(self, dataset: str) -> DatasetInfo:
        if dataset not in self._infos:
            self._infos[dataset] = describe(dataset, data_dir=None, files=self._files)
        return self._infos[dataset]


def check_fit(config: TrialConfig, info: DatasetInfo) -> None:
    """Raise ValueError where a config asks for what its dataset or its task cannot give."""
    check_method(config.method)
    task = find_task(config.task or info.task)
    if info.task not in task.kinds:
        raise ValueError(
            f"task={config.task} reads labels of the kind {' or '.join(task.kinds)}, and {config.dataset_label} has"
            f" {info.task} ones: leave task out, or choose another"
        )
    scores = score_names(task)
    if config.selection_metric not in scores:
        near = difflib.get_close_matches(config.selection_metric, scores, n=3, cutoff=0.4) or scores
        known = ", ".join(f"val_{name}" for name in near)
        raise ValueError(
            f"selection={config.selection} is no score that training computes for {config.dataset_label}: use {known}"
        )
    if info.dimensions == 2 and config.inflation != "repeat":
        raise ValueError(
            f"inflation={config.inflation} is for volumes; {info.name} has 2D images: leave it out",
        )
    if config.resize == "pad" and config.image_size < info.size:
        raise ValueError(
            f"resize=pad needs image_size of at least {info.size}, the size of {info.name}, not {config.image_size}"
        )


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
    """The settings with the choices or levels of a field as a TrialConfig names them. trials:
    one or more of each.
    """
    searched = settings.fields[name]
    if searched.choice:
        canonical = SearchedField(choice=tuple(dict.fromkeys(getattr(config, name) for config in trials)))
    elif searched.levels:
        fields = list(searched.fields(name, searched.ends[0]))
        distinct = list(dict.fromkeys(tuple(getattr(config, field) for field in fields) for config in trials))
        if len(distinct) < len(searched.levels):
            raise ValueError(
                f"two levels of {name} are the same trial; give them fields that differ",
            )
        levels = {}
        for level, values in zip(searched.levels, distinct, strict=True):
            levels[level] = dict(zip(fields, values, strict=True))
        canonical = SearchedField(levels=levels)
    else:
        return settings
    return settings.model_copy(update={"fields": settings.fields | {name: canonical}})


def searched_factor(factor: Factor, settings: SearchSettings) -> Factor:
    """The factor with all its levels where it is searched: the groups show the first one alone."""
    searched = settings.fields.get(factor.name)
    if searched is None:
        return factor
    if searched.levels is not None:
        return factor_of_axis(factor.name, searched.levels)
    if searched.choice is not None:
        return factor_of_field(factor.name, searched.choice)
    return Factor(name=factor.name, levels=(Level(name="searched", fields={}),), baseline="searched")


def _group_name(group: TrialConfig, factors: Sequence[Factor], settings: SearchSettings) -> str:
    """A name for a group: its dataset and its levels of the factors that are not searched."""
    parts = [group.dataset_label]
    for factor in factors:
        if factor.name in settings.fields:
            continue
        level = factor.level_of(group) or ""
        parts.append(f"p{level}" if factor.name == "patch_size" else level)
    return "-".join(parts)
