"""What a search varies and how it goes about it: the `search:` section of a search space."""

import math
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raypatch.config import TrialConfig, did_you_mean

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NEVER_SEARCHED = {
    "dataset": "scores of different data cannot be compared",
    "epochs": "it is what the search saves; `raypatch tune` takes --max-epochs",
    "selection": "it is the score that the search judges by; `raypatch tune` takes --metric",
    "steps": "a search judges by epochs; give these",
    "seed": "a lucky seed is no better recipe",
}
"""Fields of TrialConfig that a search must not vary, and why."""


class SearchedField(BaseModel):
    """Where the values of one field are drawn from, exactly one of five:
    `{loguniform: [1.0e-6, 1.0e-3]}`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
    )

    uniform: tuple[float, float] | None = Field(None, description="Low and high, evenly.")
    loguniform: tuple[float, float] | None = Field(
        None,
        description="Low and high, evenly in the logarithm.",
    )
    integer: tuple[int, int] | None = Field(
        None,
        alias="int",
        description="Low and high, both included.",
    )
    choice: tuple[bool | int | float | str, ...] | None = Field(
        None,
        description="The values, without order.",
    )
    levels: dict[str, dict[str, Any]] | None = Field(
        None,
        description="Named levels, each a set of fields; the field's own name is that of the axis.",
    )

    @model_validator(mode="after")
    def _one_range_with_room(self) -> Self:
        kinds = ("uniform", "loguniform", "integer", "choice", "levels")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of uniform, loguniform, int, choice, levels")
        if self.choices is not None:
            if len(set(self.choices)) != len(self.choices) or len(self.choices) < 2:
                raise ValueError(
                    f"{given[0]} {list(self.choices)} needs at least two values, each once",
                )
            if not self._levels_set_the_same():
                raise ValueError(
                    "levels must all set the same fields, or one trial would keep those of another",
                )
            return self
        low, high = self.ends
        if low >= high:
            raise ValueError(
                f"the range from {low} to {high} is empty; the first number must be the lower one",
            )
        if self.loguniform and low <= 0:
            raise ValueError(
                f"loguniform needs numbers above 0, not {low}; use uniform or a higher start",
            )
        return self

    def _levels_set_the_same(self) -> bool:
        """Whether every level sets the fields of the first one; true of a field without levels."""
        fields_of_levels = list((self.levels or {}).values())
        return all(fields.keys() == fields_of_levels[0].keys() for fields in fields_of_levels)

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The values or the names of the levels; None for a range."""
        return tuple(self.levels) if self.levels is not None else self.choice

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for all others to be: both ends, or every choice."""
        ends = self.choices or self.uniform or self.loguniform or self.integer
        assert ends is not None, "held by the validator"
        return ends

    def fields(self, name: str, value: Any) -> dict[str, Any]:
        """Return the fields of a trial that the drawn `value` sets.

        name: what the search calls this field.
        """
        return self.levels[value] if self.levels is not None else {name: value}

    def drawn(self, name: str, config: TrialConfig) -> Any:
        """Return the value that a trial was drawn with; None where it could not have been drawn."""
        if self.levels is not None:
            # Levels set the same fields, and resolving a study refuses two that are one trial.
            for level, fields in self.levels.items():
                if _holds(fields, config):
                    return level
            return None
        value = getattr(config, name)
        if self.choice is not None:
            return value if value in self.choice else None
        low, high = self.ends
        in_range = isinstance(value, (int, float)) and low <= value <= high
        return value if in_range else None

    def to_optuna(self) -> "BaseDistribution":
        """Optuna's name for the range."""
        # Here, and not above: a study is read in many commands that search nothing.
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        low, high = self.ends
        if self.integer:
            return IntDistribution(low, high)
        return FloatDistribution(low, high, log=self.loguniform is not None)

    @property
    def size(self) -> float:
        """How many values there are, infinity for real numbers."""
        if self.choices is not None:
            return len(self.choices)
        if self.integer:
            low, high = self.integer
            return high - low + 1
        return math.inf


def _holds(fields: dict[str, Any], config: TrialConfig) -> bool:
    return all(getattr(config, field) == value for field, value in fields.items())


class SearchSettings(BaseModel):
    """How each group, one dataset at one level of each factor, is searched,
    by the score that `selection` names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: dict[str, SearchedField] = Field(
        description="TrialConfig fields that are searched, with their range.",
    )
    samples: int = Field(16, ge=1, description="Trials per group.")
    sampler: Literal["tpe", "random"] = Field("tpe", description="What draws them, from Optuna.")
    pruner: Literal["asha", "hyperband", "median", "none"] = Field(
        "asha", description="What stops the bad ones early, from Optuna, within each group."
    )
    grace_epochs: int = Field(2, ge=1, description="Epochs that every trial gets.")
    reduction: int = Field(
        4,
        ge=2,
        description="asha, hyperband: one trial in so many passes a rung.",
    )
    budget: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Most epochs a group may take, as a share of training all samples in full; raised where"
        " it would be used up before the best trial comes. Pruner none ignores it.",
    )

    @model_validator(mode="after")
    def _searchable_fields(self) -> Self:
        if not self.fields:
            raise ValueError(
                "fields is empty: name at least one, such as lr: {loguniform: [1.0e-6, 1.0e-3]}",
            )
        for name, searched in self.fields.items():
            if searched.levels is not None:
                continue
            if name not in TrialConfig.model_fields:
                raise ValueError(
                    f"unknown field {name!r}; {did_you_mean(name, TrialConfig.model_fields)}",
                )
            if name in NEVER_SEARCHED:
                raise ValueError(f"{name} cannot be searched: {NEVER_SEARCHED[name]}")
        # A draw is repeated until it gives a new trial: with too few points it would go on for ever.
        points = math.prod(field.size for field in self.fields.values())
        if self.samples > points:
            raise ValueError(f"{self.samples} samples of only {points:.0f} different trials; ask for fewer samples")
        return self

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs at which a trial of `epochs` may be stopped, and its last one.

        They are grace_epochs x reduction^k for k = 0, 1, ...
        """
        rungs = []
        rung = self.grace_epochs
        while rung < epochs:
            rungs.append(rung)
            rung *= self.reduction
        return (*rungs, epochs)


class Search(BaseModel):
    """A search as sweep.json keeps it.

    groups: a trial for each, in which only the searched fields are
    still open (they hold one end of their range).
    names: of the groups, for people; schema 1 had none and all its groups were of a patch size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: SearchSettings
    groups: tuple[TrialConfig, ...]
    names: tuple[str, ...] = ()

    @property
    def searched_fields(self) -> frozenset[str]:
        """The fields of a trial that the search sets."""
        found: set[str] = set()
        for name, searched in self.settings.fields.items():
            # All levels set the same fields, so any of the values will do.
            found |= searched.fields(name, searched.ends[0]).keys()
        return frozenset(found)

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each group, unique: dataset and levels of the factors that are not searched."""
        names = self.names or tuple(map(self._schema_1_name, self.groups))
        labels = []
        for name, group in zip(names, self.groups, strict=True):
            if names.count(name) > 1:
                # Groups that differ in a field which no name shows: the trial's hash tells them apart.
                digest = group.trial_id().rpartition("-")[2]
                name = f"{name}-{digest}"
            labels.append(name)
        return tuple(labels)

    def _schema_1_name(self, group: TrialConfig) -> str:
        if "patch_size" in self.settings.fields:
            return group.dataset_label
        return f"{group.dataset_label}-p{group.patch_size}"

    @property
    def extremes(self) -> tuple[TrialConfig, ...]:
        """Trials that show whether all can run: in each group,
        each end or choice of each searched field.
        """
        found = []
        for group in self.groups:
            for name, searched in self.settings.fields.items():
                for value in searched.ends:
                    fields = searched.fields(name, value)
                    found.append(group.model_copy(update=fields))
        return tuple(found)

    def drawn_values(self, config: TrialConfig) -> dict[str, Any]:
        """Return the value of each searched field of a trial, or the name of its level."""
        values = {}
        for name, searched in self.settings.fields.items():
            values[name] = searched.drawn(name, config)
        return values

    def group_of(self, config: TrialConfig) -> int | None:
        """Index of the group that could have drawn `config`:
        equal but for searched fields, and these in range.
        """
        if None in self.drawn_values(config).values():
            return None
        free = set(self.searched_fields)
        rest = config.model_dump(exclude=free)
        for index, group in enumerate(self.groups):
            if group.model_dump(exclude=free) == rest:
                return index
        return None
