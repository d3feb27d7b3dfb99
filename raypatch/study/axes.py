"""The axes of a study's grid: what each sets, which of its levels are kept, and what they lack."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from raypatch.config import TrialConfig, did_you_mean, field_facts
from raypatch.search_settings import SearchedField
from raypatch.study.rules import is_among

Axis = list[Any] | dict[str, dict[str, Any]]
"""The values of a field, or named levels, each a set of fields."""


def is_still_there(name: str, level: Any, values: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a level is still among those of its factor once `values` replace them."""
    if name not in values:
        return True
    return is_among(name, level, values[name])


def fields_of_axis(name: str, axis: Axis) -> set[str]:
    """The fields of a trial that a grid axis sets."""
    if isinstance(axis, list):
        return {name}
    fields: set[str] = set()
    for level in axis.values():
        fields |= level.keys()
    return fields


def narrow_levels(
    name: str,
    axis: Mapping[str, dict[str, Any]],
    wanted: Sequence[Any],
) -> dict[str, dict[str, Any]]:
    """Keep some of the named levels of an axis, in the order of the study."""
    # YAML and the command line give 7 or "7" for a level that is called 7.
    names = list(map(str, wanted))
    unknown = ", ".join(level for level in names if level not in axis)
    if unknown:
        raise ValueError(f"{unknown!r} is no level of {name}; it has {', '.join(axis)}")
    return {level: fields for level, fields in axis.items() if level in names}


def fill_levels(levels: Mapping[str, Mapping[str, Any]], fixed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the levels of an axis, each with every field that one of them sets.

    A search draws levels in turn: a field that a level leaves out must not keep what another set.
    """
    fields = dict.fromkeys(itertools.chain(*levels.values()))
    filled: dict[str, dict[str, Any]] = {name: {} for name in levels}
    for field in fields:
        otherwise = fixed.get(field, TrialConfig.model_fields[field].get_default())
        for name, given in levels.items():
            filled[name][field] = given.get(field, otherwise)
    return filled


def require_known(names: Iterable[str], known: Iterable[str], *, what: str = "") -> None:
    """Raise ValueError for the first name that is not known, with the near ones, else all."""
    known = list(known)
    before = f"{what}: " if what else ""
    for name in names:
        if name not in known:
            raise ValueError(f"{before}unknown field {name!r}; {did_you_mean(name, known)}")


def without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the values but for those of some names."""
    return {name: value for name, value in values.items() if name not in names}


def require_own_fields(grid: Mapping[str, Axis], searched: Mapping[str, SearchedField]) -> None:
    """Raise ValueError for a field that two axes set, or one and the search, for a dataset or a seed
    within a level, and for named levels of an axis that is called like a field.
    """
    set_by: dict[str, str] = {}
    for name, axis in grid.items():
        if isinstance(axis, dict) and name in TrialConfig.model_fields:
            raise ValueError(
                f"the axis {name} names its levels, but {name} is a field, whose levels are its values;"
                f" give the axis another name, such as how"
            )
        for field in fields_of_axis(name, axis):
            if field in set_by:
                raise ValueError(f"{field}: the axes {set_by[field]} and {name} both set it; keep it in one of them")
            set_by[field] = name
            if isinstance(axis, dict) and field_facts(field).role in ("block", "repeat"):
                raise ValueError(f"the levels of {name} set {field}; that is an axis of its own, not part of a level")
    for name, field_of_search in searched.items():
        # Sorted: a set has no order, and the message should name the same field every time.
        for field in sorted(fields_of_axis(name, field_of_search.levels or [name])):
            if field in set_by:
                raise ValueError(f"{field}: the levels of {set_by[field]} set it and the search varies it; keep one")
