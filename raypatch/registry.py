"""Members of a seam by name: those that ship with raypatch, and those of other packages."""

import difflib
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

Member = TypeVar("Member")

ADDRESS = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")
"""How a member of somebody's own module is named: module:NAME."""


class Registry(Generic[Member]):
    """The members of one seam.

    kind: what one is called in messages (task, method).
    protocol: the class that says what each must have.
    group: the entry points by which installed packages add members.
    shipped: name -> module:NAME, loaded when it is asked for.
    A member is an instance, or a class that is made without arguments.
    """

    def __init__(
        self,
        kind: str,
        protocol: type,
        *,
        group: str,
        shipped: Mapping[str, str],
    ) -> None:
        self.kind = kind
        self.protocol = protocol
        self.group = group
        self.shipped = dict(shipped)
        self._found: dict[str, Member] = {}

    def find(self, name: str) -> Member:
        """Return the member called `name`: shipped, module:NAME, or of an installed package.

        Raises ValueError with near names for an unknown one, for a module that cannot be imported,
        and for a member that lacks a part of the protocol, which is named.
        """
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def names(self) -> tuple[str, ...]:
        """The names of all members but those of modules that are named by address."""
        return tuple(dict.fromkeys([*self.shipped, *self._installed()]))

    def _load(self, name: str) -> Member:
        # Asking what is installed reads every package's metadata: not for a shipped member.
        addresses = self.shipped if name in self.shipped else self._installed()
        address = addresses.get(name, name)
        if not ADDRESS.fullmatch(address):
            near = difflib.get_close_matches(name, self.names(), n=3) or self.names()
            raise ValueError(f"unknown {self.kind} {name!r}: use {', '.join(near)}, or module:NAME for one of your own")
        return self._checked(name, load_address(address, what=self.kind))

    def _installed(self) -> dict[str, str]:
        entries = importlib.metadata.entry_points(group=self.group)
        # An entry point may be written `module : NAME`.
        return {entry.name: entry.value.replace(" ", "") for entry in entries}

    def _checked(self, name: str, found: object) -> Member:
        member = found
        if isinstance(found, type):
            try:
                member = found()
            except TypeError as error:
                raise ValueError(
                    f"{name} is no {self.kind}: it must be made without arguments ({error})",
                ) from error
        lacking = missing_parts(member, self.protocol)
        if lacking:
            raise ValueError(
                f"{name} is no {self.kind}: it lacks {', '.join(lacking)};"
                f" what each part does stands in {self.protocol.__module__}.{self.protocol.__name__}"
            )
        return cast(Member, member)


def load_address(address: str, *, what: str) -> Any:
    """Return the object that `module:NAME` names.

    Raises ValueError when there is none, saying of `what`.
    """
    module_name, _, name = address.partition(":")
    try:
        module = importlib.import_module(module_name)
    # Somebody's own module may fail in any way while it is imported.
    except Exception as error:
        raise ValueError(
            f"{what} {address}: cannot import {module_name} ({type(error).__name__}: {error});"
            " install it, or name its folder in PYTHONPATH"
        ) from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, vars(module), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"{what} {address}: {module_name} has no {name}{hint}")
    return getattr(module, name)


def missing_parts(member: object, protocol: type) -> list[str]:
    """The names of what a protocol asks for and a member lacks."""
    return [part for part in _parts(protocol) if not hasattr(member, part)]


def _parts(protocol: type) -> list[str]:
    """The names of all that a protocol asks for: attributes and methods."""
    # Attributes stand in the annotations alone, methods in the class's own names. A dict keeps the
    # order in which the protocol lists them, for the message about what is lacking.
    parts: dict[str, None] = {}
    for each in reversed(protocol.__mro__):
        if each.__module__ in ("builtins", "typing"):
            continue
        for part in (*inspect.get_annotations(each), *vars(each)):
            if not part.startswith("_"):
                parts[part] = None
    return list(parts)
