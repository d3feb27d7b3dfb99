"""How a command takes groups of options, and what it answers to a field that is written as an option."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from typer.core import TyperCommand


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: each field of one becomes an option of the command."""
    # typer reads a command's signature, and knows no groups: it is given one with all fields.
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not dataclasses.is_dataclass(kind):
            # By keyword, since a parameter without a default may come after one that has.
            own = parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            parameters.append(own)
            continue
        groups[parameter.name] = kind
        types = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            option = inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=types[field.name],
            )
            parameters.append(option)

    @functools.wraps(command)
    def call(**given: Any) -> None:
        for name, kind in groups.items():
            values = {}
            for field in dataclasses.fields(kind):
                values[field.name] = given.pop(field.name)
            given[name] = kind(**values)
        command(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect reads
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


class StudyCommand(TyperCommand):
    """A command that takes a study: a field that is written as an option is answered with --set."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # click takes words off the list as it reads them.
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Of click's NoSuchOption, whose class is not named: typer may carry its own click.
            option = getattr(error, "option_name", None)
            if isinstance(option, str):
                _point_to_set(error, option, words)
            raise


def _point_to_set(error: Any, option: str, words: Sequence[str]) -> None:
    """Make the message of an unknown option say how the field of that name is set."""
    from raypatch.config import TrialConfig

    field = option.lstrip("-").replace("-", "_")
    if field not in TrialConfig.model_fields:
        return
    value = "VALUE"
    for index, word in enumerate(words):
        if word.startswith(f"{option}="):
            value = word.partition("=")[2]
        elif word == option and index + 1 < len(words):
            value = words[index + 1]
    way_out = f"{field} is a field of a trial: --set {field}={value}"
    error.message = f"No such option: {option}. {way_out}"
    # click would suggest options that are spelled much the same.
    error.possibilities = []
