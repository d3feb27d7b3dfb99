"""What a study says of fields where a condition holds, and how values that were typed are read."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from raypatch.config import TrialConfig

FACTS: Mapping[str, tuple[Any, ...]] = {
    "dimensions": (2, 3),
    "task": ("binary", "multiclass", "ordinal", "multilabel", "segmentation"),
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


def is_among(field: str, value: Any, wanted: Iterable[Any]) -> bool:
    """Whether `value` is one of those wanted of a field, each read as the field's type."""
    typed = typed_value(field, value)
    return any(typed_value(field, each) == typed for each in wanted)


@functools.cache
def _adapter(field: str) -> TypeAdapter[Any]:
    # A dataset fact, such as dimensions, is no field: it is compared as it was typed.
    known: Any = Any
    if field in TrialConfig.model_fields:
        known = TrialConfig.model_fields[field].annotation
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
            value = values.get(key)
            if not is_among(key, value, as_list(want)):
                return False
        return True
