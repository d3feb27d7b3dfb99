"""A study: what is compared, on which data, with which fields; the rules that hold between these."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import model_validator as validator

from raypatch.config import TrialConfig, did_you_mean, explain_validation, field_facts
from raypatch.factors import ask_search, ask_which, field_label
from raypatch.results.records import Expectation
from raypatch.search_settings import SearchSettings
from raypatch.study.names import check_name
from raypatch.study.rules import FACTS, WhenRule, as_list, typed_value

Axis = list[Any] | dict[str, dict[str, Any]]
"""The values of a field, or named levels, each a set of fields."""


class Study(BaseModel):
    """What is compared, and which trials answer it.

    A grid axis beats a when-rule, a when-rule beats a fixed field, that the default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(check_name)] = Field(
        description="Default name of the run folder.",
    )
    description: str = Field("", description="What the study is for, one sentence.")
    compare: Annotated[tuple[str, ...], BeforeValidator(as_list)] = Field(
        (),
        description="The factor, or several, each answered with the others as settings; default the patch size.",
    )
    baseline: dict[str, Any] = Field(
        default_factory=dict,
        description="Level that the others are measured against, by factor; default the first.",
    )
    metric: str | None = Field(
        None,
        description="The score that the answer is about; default the task's own.",
    )
    fixed: dict[str, Any] = Field(
        default_factory=dict,
        description="TrialConfig fields that every trial shares.",
    )
    grid: dict[str, Axis] = Field(
        default_factory=dict,
        description="Fields with a list of values each, or axes of named levels: name -> fields.",
    )
    when: tuple[WhenRule, ...] = Field(
        (),
        description="Rules that set fields, such as the recipe of 2D or 3D data.",
    )
    search: SearchSettings | None = Field(
        None,
        description="Fields to search at each point of the grid, and how.",
    )
    expect: tuple[Expectation, ...] = Field(
        (),
        description="What publications state, with source and datasets.",
    )

    @validator(mode="before")
    @classmethod
    def _baseline_of_one_factor(cls, values: Any) -> Any:
        """`baseline: 28` is short for `baseline: {patch_size: 28}` where one factor is compared."""
        if not isinstance(values, dict) or "baseline" not in values or isinstance(values["baseline"], dict):
            return values
        compared = as_list(values.get("compare", "patch_size"))
        if len(compared) != 1:
            raise ValueError(
                f"baseline: several factors are compared; name one by factor, such as {{{compared[0]}: …}}"
            )
        return values | {"baseline": {compared[0]: values["baseline"]}}

    @validator(mode="after")
    def _only_known_fields(self) -> Self:
        known = list(TrialConfig.model_fields)
        for rule in self.when:
            _require_known(rule.condition, [*known, *FACTS])
            _require_known(rule.values, known)
        _require_known(self.fixed, known)
        for name, axis in self.grid.items():
            if not axis:
                raise ValueError(
                    f"grid axis {name!r} is empty; give at least one value or remove it",
                )
            if isinstance(axis, list):
                _require_known([name], known)
            else:
                for fields in axis.values():
                    _require_known(fields, known)
        if both := set(self.fixed) & set(self.grid):
            raise ValueError(f"{', '.join(sorted(both))}: both fixed and a grid axis; keep one")
        searched = set(self.search.fields) if self.search else set()
        asked = {key for rule in self.when for key in rule.condition}
        if both := searched & {*self.fixed, *self.grid, *asked}:
            raise ValueError(
                f"{', '.join(sorted(both))}: searched, so it cannot be given or asked for by a when-rule",
            )
        return self

    @validator(mode="after")
    def _levels_set_fields_of_their_own(self) -> Self:
        set_by: dict[str, str] = {}
        for name, axis in self.grid.items():
            for field in _fields_of_axis(name, axis):
                if field in set_by:
                    raise ValueError(
                        f"{field}: the axes {set_by[field]} and {name} both set it; keep it in one of them"
                    )
                set_by[field] = name
                if isinstance(axis, dict) and field_facts(field).role in ("block", "repeat"):
                    raise ValueError(
                        f"the levels of {name} set {field}; that is an axis of its own, not part of a level"
                    )
        for name, searched in self.search.fields.items() if self.search else ():
            for field in sorted(_fields_of_axis(name, searched.levels or [name])):
                if field in set_by:
                    raise ValueError(
                        f"{field}: the levels of {set_by[field]} set it and the search varies it; keep one"
                    )
        return self

    @validator(mode="after")
    def _compares_what_can_be_compared(self) -> Self:
        searched = self.search.fields if self.search else ()
        for name in self.compare:
            _require_known([name], [*TrialConfig.model_fields, *self.grid, *searched], what="compare")
            role = field_facts(name).role if name in TrialConfig.model_fields else "factor"
            if role in ("block", "repeat"):
                raise ValueError(
                    f"compare: {name} is what the comparison is repeated over; name another field",
                )
            if name in searched and role == "hyperparameter":
                raise ValueError(
                    f"compare: {name} is searched, so its levels are not compared; keep one of the two",
                )
        if len(set(self.compare)) < len(self.compare):
            raise ValueError(f"compare: {', '.join(self.compare)} names a factor twice")
        for name in self.baseline:
            _require_known([name], self.compared, what="baseline")
        return self

    @property
    def compared(self) -> tuple[str, ...]:
        """The factors: those named, else the patch size,
        else every axis of two levels that is no hyperparameter.
        """
        if self.compare:
            return self.compare
        if "patch_size" in {*self.grid, *self.fixed} or (self.search and "patch_size" in self.search.fields):
            return ("patch_size",)
        varied = []
        for name, axis in self.grid.items():
            is_factor = isinstance(axis, dict) or field_facts(name).role == "factor"
            if is_factor and len(axis) > 1:
                varied.append(name)
        return tuple(varied) or ("model",)

    @property
    def question(self) -> str:
        """The study in one question: Which patch size? Of a search:
        Which learning rate for each patch size?
        """
        if self.search is not None:
            return ask_search(list(self.search.fields), self.compared)
        return ask_which([field_label(name) for name in self.compared])

    def override(self, values: Mapping[str, Sequence[Any]]) -> "Study":
        """Return the study with each field of `values` replaced by an axis of these values,
        whatever set it before.

        The name of an axis of named levels keeps those levels alone. A
        baseline that is left out gives way. Raises ValueError for a
        level that there is not, and for a field that named levels set.
        """
        fixed = {key: value for key, value in self.fixed.items() if key not in values}
        grid = dict(self.grid)
        for key, wanted in values.items():
            axis = self.grid.get(key)
            grid[key] = _narrow_levels(key, axis, wanted) if isinstance(axis, dict) else list(wanted)
            for name, other in self.grid.items():
                if name != key and key in _fields_of_axis(name, other):
                    raise ValueError(
                        f"{key} is set by the levels of {name}: choose among these with --set {name}="
                        f"{','.join(map(str, other))}"
                    )
        baseline = {name: level for name, level in self.baseline.items() if _still_there(name, level, values)}
        if self.search is None:
            return self._changed(fixed=fixed, grid=grid, baseline=baseline)
        search = self.search.model_dump(by_alias=True, exclude_none=True)
        search["fields"] = {key: field for key, field in search["fields"].items() if key not in values}
        return self._changed(fixed=fixed, grid=grid, search=search, baseline=baseline)

    def override_compare(self, compare: Sequence[str]) -> "Study":
        """Return the study with other factors; a baseline of one that
        is compared no more is dropped.

        Raises ValueError for what cannot be compared and for a factor without two levels.
        """
        baseline = {name: level for name, level in self.baseline.items() if name in compare}
        changed = self._changed(compare=list(compare), baseline=baseline)
        changed.require_comparison()
        return changed

    def override_search(self, **settings: Any) -> "Study":
        """Return the study with these settings of its search.

        Raises ValueError for a study without search.
        """
        if self.search is None:
            raise ValueError(
                f"the study {self.name!r} has no `search:` section; use --space learning_rate",
            )
        return self._changed(search=self.search.model_dump(by_alias=True, exclude_none=True) | settings)

    def search_together(self) -> "Study":
        """Return the study with its factors searched:
        each axis becomes one choice within each dataset.
        """
        assert self.search is not None
        search = self.search.model_dump(by_alias=True, exclude_none=True)
        fixed, grid = dict(self.fixed), dict(self.grid)
        for name in self.compared:
            axis = grid.pop(name, None) or [fixed.pop(name, None)]
            if len(axis) < 2:
                raise ValueError(
                    f"--together needs two levels of {name} at least, not {', '.join(map(str, axis))}",
                )
            search["fields"][name] = {"levels": self._fill_levels(axis)} if isinstance(axis, dict) else {"choice": axis}
        return self._changed(fixed=fixed, grid=grid, search=search)

    def _fill_levels(self, levels: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the levels of an axis, each with every field that one of them sets:
        drawn in turn, none may leak.
        """
        filled: dict[str, dict[str, Any]] = {name: {} for name in levels}
        for field in dict.fromkeys(field for fields in levels.values() for field in fields):
            otherwise = self.fixed.get(field, TrialConfig.model_fields[field].get_default())
            for name, fields in levels.items():
                filled[name][field] = fields.get(field, otherwise)
        return filled

    def add_rules(self, rules: Sequence[WhenRule]) -> "Study":
        """Return the study with further when-rules;
        where two set a field, the last one that holds wins.
        """
        return self._changed(when=[rule.model_dump(by_alias=True) for rule in (*self.when, *rules)])

    def require_comparison(self) -> None:
        """Raise ValueError where a factor that the study itself names has no two levels to compare."""
        for name in self.compare:
            axis = self.grid.get(name)
            if self.search and name in self.search.fields:
                continue
            if axis is None:
                raise ValueError(
                    f"compare: {name} is no axis of the grid; list its levels under grid",
                )
            distinct = {str(typed_value(name, level)) for level in axis}
            if len(distinct) < 2:
                raise ValueError(
                    f"compare: {name} has one level, {distinct.pop()}; give two or compare another field",
                )

    def _changed(self, **parts: Any) -> "Study":
        try:
            return Study.model_validate(self.model_dump(by_alias=True, exclude_none=True) | parts)
        except ValidationError as error:
            raise ValueError(explain_validation(error, Study)) from error


def _still_there(name: str, level: Any, values: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a level is still among those of its factor once `values` replace them."""
    if name not in values:
        return True
    left = [typed_value(name, value) for value in values[name]]
    return typed_value(name, level) in left


def _fields_of_axis(name: str, axis: Axis) -> set[str]:
    """The fields of a trial that a grid axis sets."""
    if isinstance(axis, list):
        return {name}
    return {field for fields in axis.values() for field in fields}


def _narrow_levels(
    name: str,
    axis: Mapping[str, dict[str, Any]],
    wanted: Sequence[Any],
) -> dict[str, dict[str, Any]]:
    """Keep some of the named levels of an axis, in the order of the study."""
    unknown = [str(level) for level in wanted if str(level) not in axis]
    if unknown:
        raise ValueError(f"{', '.join(unknown)!r} is no level of {name}; it has {', '.join(axis)}")
    return {level: fields for level, fields in axis.items() if level in map(str, wanted)}


def _require_known(names: Iterable[str], known: Iterable[str], *, what: str = "") -> None:
    """Raise ValueError for the first name that is not known, with the near ones, else all."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(
                f"{what}{': ' if what else ''}unknown field {name!r}; {did_you_mean(name, known)}",
            )
