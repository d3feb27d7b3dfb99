"""What the runs of a report compare: their factors, and the level that each trial has of them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raypatch.config import TrialConfig, field_facts
from raypatch.factors import Factor, factor_of_axis, factor_of_field, field_label, widen
from raypatch.results import SweepRecord

DEFAULT_QUESTIONS = ("patch_size", "model")
"""What a run asks that does not say so, as runs of schema 1: the first of these that its trials have."""


@dataclass(frozen=True)
class RunContent:
    """A run as far as its question goes. configs: of its trials, finished and planned."""

    name: str
    record: SweepRecord | None
    configs: tuple[TrialConfig, ...]


def factors_of_runs(runs: Sequence[RunContent], compare: Sequence[str] | None = None) -> tuple[Factor, ...]:
    """Return the factors that the runs compare, with the levels of all of them; compare: others to ask instead.

    Raises ValueError for runs that compare different things, and for a factor that cannot be
    compared.
    """
    if compare is not None:
        return tuple(_asked_factor(name, runs) for name in dict.fromkeys(compare))
    factors = [_own_factors(run) for run in runs]
    _require_one_question(runs, factors)
    configs = _all_configs(runs)
    united = []
    for name, first in factors[0].items():
        others = [own[name] for own in factors[1:]]
        united.append(_unite(first, others, configs))
    return tuple(united)


def _require_one_question(runs: Sequence[RunContent], factors: Sequence[Mapping[str, Factor]]) -> None:
    """Raise ValueError unless all runs compare the same, in whatever order."""
    first = factors[0]
    if all(own.keys() == first.keys() for own in factors):
        return
    said = []
    for run, own in zip(runs, factors, strict=True):
        compared = " and ".join(map(field_label, own))
        said.append(f"{run.name} compares {compared}")
    raise ValueError(
        f"{'; '.join(said)}: ask one question of all of them, such as --compare {next(iter(first))},"
        " or make a report of each"
    )


def _all_configs(runs: Sequence[RunContent]) -> list[TrialConfig]:
    configs: list[TrialConfig] = []
    for run in runs:
        configs.extend(run.configs)
    return configs


def _recorded_factors(runs: Sequence[RunContent]) -> list[Factor]:
    """The factors that the runs' records name, run by run."""
    factors: list[Factor] = []
    for run in runs:
        if run.record is not None:
            factors.extend(run.record.factors)
    return factors


def levels_of(config: TrialConfig, trial_id: str, factors: Sequence[Factor], run: RunContent) -> tuple[str, ...] | str:
    """Return the level that a trial has of each factor; a sentence where it has none of one."""
    planned = _planned_levels(trial_id, run)
    found = []
    for factor in factors:
        # A trial may fit two named levels: which was meant, only the plan knows.
        level = planned.get(factor.name)
        if level not in factor.names:
            level = factor.level_of(config)
        if level is None:
            return f"has none of the levels of {factor.label} ({', '.join(factor.names)})"
        found.append(level)
    return tuple(found)


def _planned_levels(trial_id: str, run: RunContent) -> Mapping[str, str]:
    """What sweep.json says of the trial, by named axis: a field's levels are worded anew where they were widened."""
    planned: dict[str, str] = {}
    if run.record is None or trial_id not in run.record.levels:
        return planned
    for factor, level in zip(run.record.factors, run.record.levels[trial_id], strict=False):
        if factor.name not in TrialConfig.model_fields:
            planned[factor.name] = level
    return planned


def _own_factors(run: RunContent) -> dict[str, Factor]:
    """What a run compares, by name, with the levels that its trials have."""
    recorded = _recorded_factors([run])
    if recorded:
        return {factor.name: _with_values(factor, run.configs) for factor in recorded}
    for name in DEFAULT_QUESTIONS:
        values = _field_values(name, run.configs)
        known = [value for value in values if value is not None]
        if known:
            return {name: factor_of_field(name, known)}
    # A run without any trial.
    name = DEFAULT_QUESTIONS[0]
    return {name: factor_of_field(name, [None])}


def _field_values(name: str, configs: Sequence[TrialConfig]) -> list[Any]:
    return [getattr(config, name) for config in configs]


def _with_values(factor: Factor, configs: Sequence[TrialConfig]) -> Factor:
    """The factor with the levels that its trials have; one that was searched within a range knew none before."""
    is_field = factor.name in TrialConfig.model_fields
    if is_field and factor.fields != {factor.name}:
        values = _field_values(factor.name, configs)
        return factor_of_field(factor.name, values) if values else factor
    return widen(factor, configs)


def _unite(first: Factor, others: Sequence[Factor], configs: Sequence[TrialConfig]) -> Factor:
    """One factor with the levels of all; the baseline is the first run's."""
    if not others:
        return first
    if first.name in TrialConfig.model_fields:
        return widen(first, configs)
    levels: dict[str, Mapping[str, Any]] = {}
    for factor in (first, *others):
        for level in factor.levels:
            if levels.setdefault(level.name, level.fields) != level.fields:
                raise ValueError(
                    f"the level {level.name} of {first.name} is not the same in all runs: {levels[level.name]} and"
                    f" {level.fields}; make a report of each"
                )
    return factor_of_axis(first.name, levels, first.baseline)


def _asked_factor(name: str, runs: Sequence[RunContent]) -> Factor:
    """The factor that a user asks about. Raises ValueError where there is none, or it has one level."""
    recorded = [factor for factor in _recorded_factors(runs) if factor.name == name]
    configs = _all_configs(runs)
    if name in TrialConfig.model_fields:
        return _asked_field(name, recorded, configs)
    if not recorded:
        known = [*TrialConfig.model_fields, *(factor.name for factor in _recorded_factors(runs))]
        near = difflib.get_close_matches(name, known, n=3) or _varied(configs)
        raise ValueError(f"--compare {name}: there is no such field; use {', '.join(near)}")
    return _unite(recorded[0], recorded[1:], configs)


def _asked_field(name: str, recorded: Sequence[Factor], configs: Sequence[TrialConfig]) -> Factor:
    """The field as a factor. recorded: what the studies know of it, if they compared it themselves."""
    if field_facts(name).role in ("block", "repeat"):
        raise ValueError(f"--compare {name}: that is what a comparison is repeated over; name another field")
    factor = factor_of_field(name, _field_values(name, configs))
    if len(factor.levels) < 2:
        raise ValueError(
            f"--compare {name}: all trials have {', '.join(factor.names) or 'none'};"
            f" these differ: {', '.join(_varied(configs)) or 'no field'}"
        )
    # A baseline that is not the first level is one that a study has named.
    for own in recorded:
        if own.baseline in factor.names and own.baseline != own.names[0]:
            return factor.model_copy(update={"baseline": own.baseline})
    return factor


def _varied(configs: Sequence[TrialConfig]) -> list[str]:
    """The fields that can be compared: those that differ between trials."""
    varied = []
    for name in TrialConfig.model_fields:
        is_asked = field_facts(name).role in ("factor", "hyperparameter")
        if is_asked and len(set(_field_values(name, configs))) > 1:
            varied.append(name)
    return varied
