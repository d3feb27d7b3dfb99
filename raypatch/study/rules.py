"""What a study says of fields where a condition holds, and how values that were typed are read."""

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from raypatch.config import TrialConfig

FACTS: Mapping[str, tuple[Any, ...]] = {
    "dimensions": (2, 3),
    "task": ("binary", "multiclass", "ordinal", "multilabel"),
    "channels": (1, 3),
}
"""What a when-rule may ask beside the fields of TrialConfig: facts of the dataset."""


def typed_value(field: str, value: Any) -> Any:
    """Return `value` as the type of its field, so that "4" from a command line equals 4;
    unchanged where that fails.
    """
    try:
        return _adapter(field).validate_python(value)
    except ValidationError:
        return value


@functools.cache
def _adapter(field: str) -> TypeAdapter[Any]:
    known: Any = TrialConfig.model_fields[field].annotation if field in TrialConfig.model_fields else Any
    return TypeAdapter(known)


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as the only element of one."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


class WhenRule(BaseModel):
    """What follows where a condition holds: `{if: {dimensions: 3},
    set: {lr: 1.0e-5}}`, or `skip: true`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    condition: dict[str, Any] = Field(
        alias="if",
        description="Field or dataset fact -> value or list of values.",
    )
    values: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="TrialConfig fields that the condition sets."
    )
    skip: bool = Field(False, description="Leave out the trials for which the condition holds.")

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether every condition is met by `values`, fields and facts together."""
        for key, want in self.condition.items():
            wanted = [typed_value(key, each) for each in as_list(want)]
            if typed_value(key, values.get(key)) not in wanted:
                return False
        return True
