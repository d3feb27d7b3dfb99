"""A study: what is compared, on which data, with which fields; the rules that hold between these."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import model_validator as validator

from raypatch.config import TrialConfig, explain_validation, field_facts
from raypatch.factors import ask_search, ask_which, field_label
from raypatch.results.records import Expectation
from raypatch.search_settings import SearchSettings
from raypatch.study.axes import (
    Axis,
    fields_of_axis,
    fill_levels,
    is_still_there,
    narrow_levels,
    require_known,
    require_own_fields,
    without,
)
from raypatch.study.names import check_name
from raypatch.study.published import check_table
from raypatch.study.rules import FACTS, WhenRule, as_list, typed_value
from raypatch.study.stages import check_stages, override_parts


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
    repeats: Literal["mean", "median"] = Field(
        "mean",
        description="What tables show of a score's repeats, beside their standard deviation.",
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
    stages: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Trainings that make weights: name -> fields; a trial starts from them by `weights: stage:NAME`.",
    )
    resolutions: dict[str, dict[int, Path]] = Field(
        default_factory=dict,
        description="Own datasets of several sizes: name -> edge in pixels -> .npz file of the same images.",
    )
    search: SearchSettings | None = Field(
        None,
        description="Fields to search at each point of the grid, and how.",
    )
    expect: tuple[Expectation, ...] = Field(
        (),
        description="What publications state, with source and datasets, or a table of scores as a CSV.",
    )

    @validator(mode="before")
    @classmethod
    def _baseline_of_one_factor(cls, values: Any) -> Any:
        """`baseline: 28` is short for `baseline: {patch_size: 28}` where one factor is compared."""
        if not isinstance(values, dict) or "baseline" not in values:
            return values
        if isinstance(values["baseline"], dict):
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
            require_known(rule.condition, [*known, *FACTS])
            require_known(rule.values, known)
        require_known(self.fixed, known)
        for name, axis in self.grid.items():
            if not axis:
                raise ValueError(
                    f"grid axis {name!r} is empty; give at least one value or remove it",
                )
            if isinstance(axis, list):
                require_known([name], known)
            else:
                for fields in axis.values():
                    require_known(fields, known)
        self._require_given_once()
        return self

    def _require_given_once(self) -> None:
        """Raise ValueError where two sections of the study set the same field."""
        both = set(self.fixed) & set(self.grid)
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: both fixed and a grid axis; keep one")
        if self.search is None:
            return
        # A rule cannot ask for a searched field: rules are applied before anything is drawn.
        given = {*self.fixed, *self.grid}
        for rule in self.when:
            given |= set(rule.condition)
        both = set(self.search.fields) & given
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: searched, so it cannot be given or asked for by a when-rule")

    @validator(mode="after")
    def _stages_make_weights(self) -> Self:
        check_stages(self.stages)
        if self.stages and self.search is not None:
            raise ValueError("stages: a search has none; search without, or list the trials in a grid")
        return self

    @validator(mode="after")
    def _tables_can_be_read(self) -> Self:
        searched = self.search.fields if self.search else {}
        known = {*TrialConfig.model_fields, *self.grid, *searched}
        for expectation in self.expect:
            if expectation.table:
                check_table(expectation.table, known)
        return self

    @validator(mode="after")
    def _levels_set_fields_of_their_own(self) -> Self:
        require_own_fields(self.grid, self.search.fields if self.search else {})
        return self

    @validator(mode="after")
    def _compares_what_can_be_compared(self) -> Self:
        searched = self.search.fields if self.search else {}
        known = [*TrialConfig.model_fields, *self.grid, *searched]
        for name in self.compare:
            require_known([name], known, what="compare")
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
            require_known([name], self.compared, what="baseline")
        return self

    @property
    def compared(self) -> tuple[str, ...]:
        """The factors: those named, else the patch size,
        else every axis of two levels that is no hyperparameter.
        """
        if self.compare:
            return self.compare
        searched = self.search.fields if self.search else {}
        if "patch_size" in {*self.grid, *self.fixed, *searched}:
            return ("patch_size",)
        varied = []
        for name, axis in self.grid.items():
            is_factor = isinstance(axis, dict) or field_facts(name).role == "factor"
            if is_factor and len(axis) > 1:
                varied.append(name)
        return tuple(varied) or ("model",)

    @property
    def question(self) -> str:
        """The study in one question: Which patch size?

        Of a search: Which learning rate for each patch size?
        """
        if self.search is not None:
            return ask_search(list(self.search.fields), self.compared)
        return ask_which(list(map(field_label, self.compared)))

    def override(self, values: Mapping[str, Sequence[Any]]) -> "Study":
        """Return the study with each field of `values` replaced by an axis of these values,
        whatever set it before.

        The name of an axis of named levels keeps those levels alone. A
        baseline that is left out gives way. Raises ValueError for a
        level that there is not, and for a field that named levels set. STAGE.FIELD is a field of a stage, and
        AXIS.LEVEL.FIELD one of a named level.
        """
        changed = {key: wanted for key, wanted in values.items() if "." in key}
        stages, grid = override_parts(self.stages, self.grid, changed)
        values = without(values, changed)
        fixed = without(self.fixed, values)
        for key, wanted in values.items():
            self._require_settable(key)
            axis = grid.get(key)
            if isinstance(axis, dict):
                grid[key] = narrow_levels(key, axis, wanted)
            else:
                grid[key] = list(wanted)
        baseline = {}
        for name, level in self.baseline.items():
            if is_still_there(name, level, values):
                baseline[name] = level
        if self.search is None:
            return self._changed(fixed=fixed, grid=grid, baseline=baseline, stages=stages)
        search = self._dump_search()
        search["fields"] = without(search["fields"], values)
        return self._changed(fixed=fixed, grid=grid, search=search, baseline=baseline)

    def _require_settable(self, field: str) -> None:
        """Raise ValueError for a field that the named levels of an axis set."""
        for name, axis in self.grid.items():
            if name != field and field in fields_of_axis(name, axis):
                levels = ",".join(map(str, axis))
                raise ValueError(
                    f"{field} is set by the levels of {name}: choose among these with --set {name}={levels}"
                )

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
        return self._changed(search=self._dump_search() | settings)

    def _dump_search(self) -> dict[str, Any]:
        """The `search:` section as a user would write it, for a changed study to read."""
        assert self.search is not None
        # By alias: `int` in a file is `integer` here. Without None: exactly one range may be given.
        return self.search.model_dump(by_alias=True, exclude_none=True)

    def search_together(self) -> "Study":
        """Return the study with its factors searched:
        each axis becomes one choice within each dataset.
        """
        search = self._dump_search()
        fixed, grid = dict(self.fixed), dict(self.grid)
        for name in self.compared:
            # A factor with one value may stand under fixed; the message below shows that value.
            axis = grid.pop(name, None) or [fixed.pop(name, None)]
            if len(axis) < 2:
                given = ", ".join(map(str, axis))
                raise ValueError(f"--together needs two levels of {name} at least, not {given}")
            if isinstance(axis, dict):
                search["fields"][name] = {"levels": fill_levels(axis, self.fixed)}
            else:
                search["fields"][name] = {"choice": axis}
        return self._changed(fixed=fixed, grid=grid, search=search)

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
            # As text: a wrong value, such as a list, has no hash; it is refused with its trial.
            distinct = {str(typed_value(name, level)) for level in axis}
            if len(distinct) < 2:
                (only,) = distinct
                raise ValueError(
                    f"compare: {name} has one level, {only}; give two or compare another field",
                )

    def _changed(self, **parts: Any) -> "Study":
        try:
            return Study.model_validate(self.model_dump(by_alias=True, exclude_none=True) | parts)
        except ValidationError as error:
            raise ValueError(explain_validation(error, Study)) from error
