"""Trials that are run together: what a worker takes at once."""

from collections.abc import Hashable, Iterable

from raypatch.config import TrialConfig
from raypatch.methods import MOST_TOGETHER, group_key
from raypatch.sweep.session import Group


def group_trials(trials: Iterable[TrialConfig]) -> list[Group]:
    """Put trials together that a method fits together, each group where its first trial stood."""
    together: dict[Hashable, list[TrialConfig]] = {}
    groups: list[list[TrialConfig]] = []
    for config in trials:
        key = group_key(config)
        members = together.get(key)
        if key is None or members is None or len(members) == MOST_TOGETHER:
            members = []
            groups.append(members)
            together[key] = members
        members.append(config)
    return [tuple(members) for members in groups]
