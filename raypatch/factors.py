"""What a study compares: a factor, its levels in order, its baseline, and how they are worded."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from raypatch.config import TrialConfig, field_facts
from raypatch.storage.own_files import own_file_stem
from raypatch.trial_fields.stage import stage_of, without_trial


class Level(BaseModel):
    """One value of a factor.

    name: as tables and plots show it, unique in its factor. fields: the fields of a trial that it
    sets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fields: dict[str, Any]

    def holds(self, config: TrialConfig) -> bool:
        """Whether a trial has every value that the level sets."""
        return all(without_trial(getattr(config, field)) == value for field, value in self.fields.items())


class Factor(BaseModel):
    """What is compared.

    name: a field of TrialConfig, or a grid axis of named levels.
    levels: in the order in which they are shown.
    baseline: the name of the level that the others are measured against.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    levels: tuple[Level, ...]
    baseline: str

    @property
    def label(self) -> str:
        """The factor in a sentence: patch size, model, backbone."""
        return field_label(self.name)

    @property
    def heading(self) -> str:
        """The factor above a column or along an axis, with its unit: Patch size, Image size (px)."""
        return field_heading(self.name)

    @property
    def ordered(self) -> bool:
        """Whether the levels are steps along a scale, so that neighbours may be joined by a line."""
        return self.name in TrialConfig.model_fields and field_facts(self.name).order != "given"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the levels, in order."""
        return tuple(level.name for level in self.levels)

    @property
    def fields(self) -> frozenset[str]:
        """The fields of a trial that the levels set."""
        fields: set[str] = set()
        for level in self.levels:
            fields |= level.fields.keys()
        return frozenset(fields)

    @functools.cached_property
    def _by_value(self) -> dict[Any, str] | None:
        """The names of the levels by the value of the one field that they set; None where they are named sets.

        A list of thousands of values would be gone through for each of as many trials.
        """
        if self.name not in TrialConfig.model_fields or self.fields != {self.name}:
            return None
        return {level.fields[self.name]: level.name for level in self.levels}

    def rank(self, name: str) -> int:
        """Return the place of a level, from 0."""
        return self.names.index(name)

    def phrase(self, name: str) -> str:
        """Return a level in a sentence: patch size 4, linear probe, 10 % of the training images."""
        if self.name not in TrialConfig.model_fields:
            return name
        facts = field_facts(self.name)
        return facts.phrase.format(facts.words.get(name, name))

    def level_of(self, config: TrialConfig) -> str | None:
        """Return the name of the level that a trial has:
        of several that fit the one that sets most; None for none.
        """
        if self._by_value is not None:
            return self._by_value.get(without_trial(getattr(config, self.name)))
        fitting = [level for level in self.levels if level.holds(config)]
        if not fitting:
            return None
        return max(fitting, key=lambda level: len(level.fields)).name

    def parse(self, text: str) -> str:
        """Return the name of the level that a user means by `text`.

        Raises ValueError with the levels there are.
        """
        # Both as a table shows it and as a sentence says it: 4, or patch size 4.
        for name in self.names:
            if text.strip().lower() in (name.lower(), self.phrase(name).lower()):
                return name
        raise ValueError(
            f"{text.strip()!r} is no {self.label} of this study; it has {', '.join(self.names)}",
        )


def field_label(name: str) -> str:
    """Return how a field of TrialConfig, or a grid axis of named levels, is called in a sentence."""
    if name in TrialConfig.model_fields:
        return field_facts(name).label
    return name.replace("_", " ")


def ask_which(labels: Sequence[str]) -> str:
    """Return the question about these factors, given as in a sentence:
    Which patch size, and which model?
    """
    text = ", and ".join(f"which {label}" for label in labels)
    # Not capitalize(), which would make small letters of AUC and RGB.
    return f"{text[:1].upper()}{text[1:]}?"


def field_heading(name: str) -> str:
    """Return how a field, or a grid axis of named levels,
    is headed above a column or along an axis, with its unit.
    """
    label = field_label(name)
    unit = field_facts(name).unit if name in TrialConfig.model_fields else ""
    heading = label[:1].upper() + label[1:]
    # Everybody gives a patch size in pixels; the paper that this follows names no unit either.
    if not unit or name == "patch_size":
        return heading
    return f"{heading} ({unit})"


def ask_search(searched: Sequence[str], compared: Sequence[str]) -> str:
    """Return the question of a search, from names of fields or axes:
    Which learning rate for each patch size?
    """
    *first, last = map(field_label, searched)
    asked = f"{', '.join(first)} and {last}" if first else last
    apart = [field_label(name) for name in compared if name not in searched]
    if apart:
        asked = f"{asked} for each {' and '.join(apart)}"
    return ask_which([asked])


def word_value(field: str, value: Any) -> str:
    """Return the value of a field as tables show it: 4, 1e-05, 10 %, the stem of an own file."""
    facts = field_facts(field)
    if value is None:
        return "none"
    if facts.percent and isinstance(value, (int, float)):
        return f"{100 * value:g} %"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return own_file_stem(value) or stage_of(value) or value
    return str(value)


def factor_of_field(name: str, values: Iterable[Any], baseline: Any = None) -> Factor:
    """Return the factor of a field of TrialConfig that has these values.

    The levels come in the field's natural order, else as given; the
    baseline is the first unless one is given.
    """
    # Each dataset has a trial of its own that makes a stage's weights, and all are one level.
    distinct = list(dict.fromkeys(map(without_trial, values)))
    order = field_facts(name).order
    if order != "given":
        distinct = _sort_values(distinct, falling=order == "falling")
    names = [word_value(name, value) for value in distinct]
    # Own files of one stem read alike: then the names must tell their contents apart.
    if len(set(names)) < len(names):
        names = list(map(str, distinct))
    levels = []
    first = names[0]
    for text, value in zip(names, distinct, strict=True):
        levels.append(Level(name=text, fields={name: value}))
        if baseline is not None and value == baseline:
            first = text
    return Factor(name=name, levels=tuple(levels), baseline=first)


def _sort_values(values: Sequence[Any], *, falling: bool) -> list[Any]:
    """Sort by number; a value that is absent has no place on the scale and comes first."""
    numbers = [value for value in values if value is not None]
    absent = [None] * (len(values) - len(numbers))
    return absent + sorted(numbers, reverse=falling)


def factor_of_axis(
    name: str,
    levels: Mapping[str, Mapping[str, Any]],
    baseline: str | None = None,
) -> Factor:
    """Return the factor of a grid axis that names its levels, in the order of the study."""
    known = tuple(Level(name=level, fields=dict(fields)) for level, fields in levels.items())
    return Factor(name=name, levels=known, baseline=baseline or known[0].name)


def widen(factor: Factor, configs: Sequence[TrialConfig]) -> Factor:
    """Return the factor with the further values that trials have:
    those of earlier commands in the same run folder.

    A factor whose levels are named knows no others and stays as it is.
    """
    if factor.name not in TrialConfig.model_fields or factor.fields != {factor.name}:
        return factor
    values = [level.fields[factor.name] for level in factor.levels]
    found = [without_trial(getattr(config, factor.name)) for config in configs]
    if set(found) <= set(values):
        return factor
    widened = factor_of_field(factor.name, [*values, *found])
    # A baseline that is not the first level was named by the study: it stays. One that is the first
    # was taken for want of a name, and gives way to the first of all levels.
    if factor.baseline != factor.names[0]:
        return widened.model_copy(update={"baseline": factor.baseline})
    return widened


def levels_by_fields(config: TrialConfig, factors: tuple[Factor, ...]) -> tuple[str, ...]:
    """The level that a trial has of each factor by its fields; empty text where it has none."""
    return tuple(factor.level_of(config) or "" for factor in factors)
