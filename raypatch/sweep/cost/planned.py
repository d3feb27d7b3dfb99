"""The trials that a plan counts: those of a study, or stand-ins for what a search will draw."""

from dataclasses import dataclass

from raypatch.config import TrialConfig
from raypatch.factors import levels_by_fields
from raypatch.study.resolve import StudySearch, StudyTrials

MAKES_WEIGHTS = "(makes weights)"
"""In the place of a level: a stage has none."""


@dataclass(frozen=True)
class Planned:
    """A trial to plan for.

    times: how many trials it stands for, in a search. share: the part of their epochs that runs.
    """

    config: TrialConfig
    levels: tuple[str, ...]
    times: int = 1
    share: float = 1.0


def planned_trials(study: StudyTrials) -> list[Planned]:
    """Return each trial of a study, once and in full; those that make weights first."""
    planned = []
    for config in study.stages:
        planned.append(Planned(config, (MAKES_WEIGHTS,) * len(study.factors)))
    for config in study.trials:
        levels = study.levels[config.trial_id()]
        planned.append(Planned(config, levels))
    return planned


def planned_samples(study: StudySearch) -> list[Planned]:
    """Return the samples of a search, spread evenly over the levels where these are searched too.

    Any other searched field that changes the cost, such as the batch size, counts with the first
    of its values.
    """
    settings = study.search.settings
    # Without a pruner no trial is given up: all run through.
    share = 1.0 if settings.pruner == "none" else settings.budget
    planned = []
    for group in study.search.groups:
        configs = _spread_over_levels(group, study)
        each, more = divmod(settings.samples, len(configs))
        for number, config in enumerate(configs):
            # What does not divide evenly goes to the first ones.
            times = each + 1 if number < more else each
            if times:
                levels = levels_by_fields(config, study.factors)
                planned.append(Planned(config, levels, times=times, share=share))
    return planned


def _spread_over_levels(group: TrialConfig, study: StudySearch) -> list[TrialConfig]:
    """A group's stand-in in each combination of the levels that are searched; itself where none are."""
    configs = [group]
    for factor in study.factors:
        searched = study.search.settings.fields.get(factor.name)
        if searched is None or searched.choices is None:
            continue
        combined = []
        for config in configs:
            for value in searched.choices:
                fields = searched.fields(factor.name, value)
                combined.append(config.model_copy(update=fields))
        configs = combined
    return configs
