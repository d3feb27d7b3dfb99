"""What a search varies and how it goes about it: the `search:` section of a search space."""

import difflib
import itertools
import math
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raypatch.config import TrialConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NEVER_SEARCHED = {
    "dataset": "scores of different data cannot be compared",
    "epochs": "it is what the search saves; give --max-epochs",
    "selection": "it is the figure that the search judges by; give --metric",
    "seed": "a lucky seed is no better recipe",
}
"""Fields of TrialConfig that a search must not vary, and why."""


class SearchedField(BaseModel):
    """Where the values of one field are drawn from, exactly one of four: `{loguniform: [1.0e-6, 1.0e-3]}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    uniform: tuple[float, float] | None = Field(None, description="Low and high, evenly.")
    loguniform: tuple[float, float] | None = Field(None, description="Low and high, evenly in the logarithm.")
    integer: tuple[int, int] | None = Field(None, alias="int", description="Low and high, both included.")
    choice: tuple[bool | int | float | str, ...] | None = Field(None, description="The values, without order.")

    @model_validator(mode="after")
    def _one_range_with_room(self) -> Self:
        given = [name for name in ("uniform", "loguniform", "integer", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of uniform, loguniform, int, choice")
        if self.choice is not None:
            if len(set(self.choice)) != len(self.choice) or len(self.choice) < 2:
                raise ValueError(f"choice {list(self.choice)} needs at least two values, each once")
            return self
        low, high = self.ends
        if low >= high:
            raise ValueError(f"the range from {low} to {high} is empty; the first number must be the lower one")
        if self.loguniform and low <= 0:
            raise ValueError(f"loguniform needs numbers above 0, not {low}; use uniform or a higher start")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for all others to be: both ends, or every choice."""
        ends = self.choice or self.uniform or self.loguniform or self.integer
        assert ends is not None, "held by the validator"
        return ends

    def contains(self, value: Any) -> bool:
        """Whether `value` may be drawn."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.ends
        return isinstance(value, (int, float)) and low <= value <= high

    def to_optuna(self) -> "BaseDistribution":
        """Optuna's name for the range."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choice is not None:
            return CategoricalDistribution(self.choice)
        low, high = self.ends
        if self.integer:
            return IntDistribution(low, high)
        return FloatDistribution(low, high, log=self.loguniform is not None)

    @property
    def size(self) -> float:
        """How many values there are, infinity for real numbers."""
        if self.choice is not None:
            return len(self.choice)
        return self.integer[1] - self.integer[0] + 1 if self.integer else math.inf


class SearchSettings(BaseModel):
    """How each group, one dataset at one patch size, is searched. The score is the trials' `selection` figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: dict[str, SearchedField] = Field(description="TrialConfig fields that are searched, with their range.")
    samples: int = Field(16, ge=1, description="Trials per group.")
    sampler: Literal["tpe", "random"] = Field("tpe", description="What draws them, from Optuna.")
    pruner: Literal["asha", "hyperband", "median", "none"] = Field(
        "asha", description="What stops the bad ones early, from Optuna, within each group."
    )
    grace_epochs: int = Field(2, ge=1, description="Epochs that every trial gets.")
    reduction: int = Field(4, ge=2, description="asha, hyperband: one trial in so many passes a rung.")
    budget: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Most epochs a group may take, as a share of training all samples in full; pruner none ignores it."
        " Every trial gets its grace epochs and one trial runs through, whatever the budget.",
    )

    @model_validator(mode="after")
    def _searchable_fields(self) -> Self:
        if not self.fields:
            raise ValueError("fields is empty: name at least one, such as lr: {loguniform: [1.0e-6, 1.0e-3]}")
        for name in self.fields:
            if name not in TrialConfig.model_fields:
                near = difflib.get_close_matches(name, TrialConfig.model_fields, n=3)
                raise ValueError(f"unknown field {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
            if name in NEVER_SEARCHED:
                raise ValueError(f"{name} cannot be searched: {NEVER_SEARCHED[name]}")
        if self.samples > (points := math.prod(field.size for field in self.fields.values())):
            raise ValueError(f"{self.samples} samples of only {points:.0f} different trials; ask for fewer samples")
        return self

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs at which a trial of so many may be stopped, and its last one: grace_epochs x reduction^k, epochs."""
        powers = (self.grace_epochs * self.reduction**k for k in itertools.count())
        return (*itertools.takewhile(lambda rung: rung < epochs, powers), epochs)


class Search(BaseModel):
    """A search as sweep.json keeps it.

    groups: a trial for each, in which only the searched fields are still open (they hold one end of their range).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: SearchSettings
    groups: tuple[TrialConfig, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each group, unique: dataset and patch size, unless that is searched too."""
        names = [
            group.dataset_label + ("" if "patch_size" in self.settings.fields else f"-p{group.patch_size}")
            for group in self.groups
        ]
        return tuple(
            name if names.count(name) == 1 else f"{name}-{group.trial_id().rpartition('-')[2]}"
            for name, group in zip(names, self.groups, strict=True)
        )

    @property
    def extremes(self) -> tuple[TrialConfig, ...]:
        """Trials that show whether all can run: in each group, each end or choice of each searched field."""
        return tuple(
            group.model_copy(update={name: value})
            for group in self.groups
            for name, field in self.settings.fields.items()
            for value in field.ends
        )

    def group_of(self, config: TrialConfig) -> int | None:
        """Index of the group that could have drawn `config`: equal but for searched fields, and these in range."""
        fields = self.settings.fields
        if not all(field.contains(getattr(config, name)) for name, field in fields.items()):
            return None
        rest = config.model_dump(exclude=set(fields))
        return next((i for i, group in enumerate(self.groups) if group.model_dump(exclude=set(fields)) == rest), None)
