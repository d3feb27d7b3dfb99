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

    Raises ValueError for runs that compare different things, and for a factor that cannot be compared.
    """
    if compare is not None:
        return tuple(_asked_factor(name, runs) for name in dict.fromkeys(compare))
    own = {run.name: _own_factors(run) for run in runs}
    first, *others = own.values()
    names = {factor.name for factor in first}
    if any({factor.name for factor in other} != names for other in others):
        said = [f"{run} compares {_listed([f.name for f in found])}" for run, found in own.items()]
        raise ValueError(
            f"{'; '.join(said)}: ask one question of all of them, such as --compare {first[0].name},"
            " or make a report of each"
        )
    united = []
    for factor in first:
        same = [next(f for f in other if f.name == factor.name) for other in others]
        united.append(_unite(factor, same, [config for run in runs for config in run.configs]))
    return tuple(united)


def levels_of(config: TrialConfig, trial_id: str, factors: Sequence[Factor], run: RunContent) -> tuple[str, ...] | str:
    """Return the level that a trial has of each factor; a sentence where it has none of one."""
    planned = _planned_levels(trial_id, run)
    found = []
    for factor in factors:
        level = planned.get(factor.name)
        if level not in factor.names:
            level = factor.level_of(config)
        if level is None:
            return f"has none of the levels of {factor.label} ({', '.join(factor.names)})"
        found.append(level)
    return tuple(found)


def _planned_levels(trial_id: str, run: RunContent) -> Mapping[str, str]:
    """What sweep.json says of the trial, by named axis: a field's levels are worded anew where they were widened."""
    if run.record is None:
        return {}
    own = run.record.levels.get(trial_id, ())
    pairs = zip(run.record.factors, own, strict=False)
    return {factor.name: level for factor, level in pairs if factor.name not in TrialConfig.model_fields}


def _own_factors(run: RunContent) -> tuple[Factor, ...]:
    if run.record is not None and run.record.factors:
        return tuple(_with_values(factor, run.configs) for factor in run.record.factors)
    for name in DEFAULT_QUESTIONS:
        values = [getattr(config, name) for config in run.configs]
        if any(value is not None for value in values):
            return (factor_of_field(name, [value for value in values if value is not None]),)
    return (factor_of_field(DEFAULT_QUESTIONS[0], [None]),)  # a run without any trial


def _with_values(factor: Factor, configs: Sequence[TrialConfig]) -> Factor:
    """The factor with the levels that its trials have; one that was searched within a range knew none before."""
    is_field = factor.name in TrialConfig.model_fields
    if is_field and factor.fields != {factor.name}:
        values = [getattr(config, factor.name) for config in configs]
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
    recorded: list[Factor] = []
    for run in runs:
        recorded.extend(f for f in (run.record.factors if run.record else ()) if f.name == name)
    configs = [config for run in runs for config in run.configs]
    if name not in TrialConfig.model_fields:
        if not recorded:
            known = [*TrialConfig.model_fields, *_named_axes(runs)]
            near = difflib.get_close_matches(name, known, n=3) or _varied(configs)
            raise ValueError(f"--compare {name}: there is no such field; use {', '.join(near)}")
        return _unite(recorded[0], recorded[1:], configs)
    if field_facts(name).role in ("block", "repeat"):
        raise ValueError(f"--compare {name}: that is what a comparison is repeated over; name another field")
    values = [getattr(config, name) for config in configs]
    factor = factor_of_field(name, values)
    if len(factor.levels) < 2:
        raise ValueError(
            f"--compare {name}: all trials have {', '.join(factor.names) or 'none'};"
            f" these differ: {', '.join(_varied(configs)) or 'no field'}"
        )
    kept = [f.baseline for f in recorded if f.baseline in factor.names and f.baseline != f.names[0]]
    return factor.model_copy(update={"baseline": kept[0]}) if kept else factor


def _named_axes(runs: Sequence[RunContent]) -> list[str]:
    return [factor.name for run in runs if run.record for factor in run.record.factors]


def _varied(configs: Sequence[TrialConfig]) -> list[str]:
    """The fields that can be compared: those that differ between trials."""
    found = []
    for name in TrialConfig.model_fields:
        if field_facts(name).role in ("factor", "hyperparameter") and len({getattr(c, name) for c in configs}) > 1:
            found.append(name)
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join(field_label(name) for name in names)
