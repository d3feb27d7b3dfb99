"""Trials that are run together: what a worker takes at once."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from raypatch.config import TrialConfig
from raypatch.methods import MOST_TOGETHER, feature_method, group_key
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.session import ExecutorOptions, Group


def heads_alone(config: TrialConfig) -> int:
    """How many trials like this one go together where whole models are not stacked."""
    return 1 if feature_method(config) is None else MOST_TOGETHER


def group_trials(
    todo: Sequence[TrialConfig],
    most: Callable[[TrialConfig], int] = heads_alone,
    planned: Sequence[TrialConfig] = (),
) -> list[Group]:
    """Put trials together that a method fits together, each group where its first trial stands.

    most: how many trials like one go together. planned: all trials of the sweep, those that are over too: whole models
    keep their company when a sweep goes on, since that decides the last bits of their numbers.
    """
    whole = [config for config in planned if feature_method(config) is None]
    number_of: dict[str, int] = {}
    # Of each key the group that is being filled, and how many are in it.
    filling: dict[Hashable, tuple[int, int]] = {}
    for number, config in enumerate([*whole, *todo]):
        trial_id = config.trial_id()
        if trial_id in number_of:
            continue
        key = group_key(config)
        group, size = filling.get(key, (number, 0))
        if key is None or size == 0 or size >= most(config):
            group, size = number, 0
        number_of[trial_id] = group
        filling[key] = group, size + 1
    groups: dict[int, list[TrialConfig]] = {}
    for config in todo:
        groups.setdefault(number_of[config.trial_id()], []).append(config)
    return [tuple(members) for members in groups.values()]


def place_stacks(placement: Placement, groups: Sequence[Group], execution: ExecutorOptions) -> Placement:
    """Give each stack of whole models a GPU for itself, or of one machine's cores those that fewer groups leave free.

    Not where the user says what each trial gets.
    """
    stacks = [group for group in groups if len(group) > 1 and feature_method(group[0]) is None]
    if placement.shares:
        # A group asks for what its first trial does.
        own = {group[0].trial_id(): 1.0 for group in stacks}
        return replace(placement, shares={**placement.shares, **own})
    is_free = execution.cpus_per_trial is None and not execution.on_cluster and not placement.gpu_share
    if stacks and is_free and len(groups) < placement.slots:
        cores = placement.cpus * placement.slots
        return replace(placement, cpus=cores // len(groups), slots=len(groups))
    return placement
