"""The budget of a search: how much of it must be there for the best trial to be found."""

import itertools
import math

from raypatch.search_settings import Search, SearchSettings


def least_budget(settings: SearchSettings, epochs: int) -> float:
    """Return the least share of all epochs with which a search can judge its trials of so many `epochs`.

    Every trial runs to the first rung, and past it go those that are among the best 1/`reduction`
    of all that came so far, or the best. With less, the epochs are used up before the best comes.
    """
    if settings.pruner == "none":
        return 0.0
    promoted = _promotions(settings.samples, settings.reduction)
    rungs = settings.rungs(epochs)
    needed = settings.samples * rungs[0]
    for before, rung in itertools.pairwise(rungs):
        needed += promoted * (rung - before)
    return needed / (settings.samples * epochs)


def _promotions(samples: int, reduction: int) -> int:
    """How many of the samples, in random order, are among the best when they come.

    The mean, rounded up, and one more, which is about a standard deviation.
    """
    mean = 0.0
    for number in range(1, samples + 1):
        mean += max(1, number // reduction) / number
    return min(samples, math.ceil(mean) + 1)


def fit_budget(settings: SearchSettings, epochs: list[int]) -> SearchSettings:
    """Return the settings with a budget that is enough for groups of trials of so many `epochs`."""
    needed = [least_budget(settings, most) for most in epochs]
    # Rounded up, as it is shown to people.
    least = math.ceil(100 * max(needed)) / 100
    return settings.model_copy(update={"budget": max(settings.budget, least)})


def describe_budget(search: Search) -> str:
    """Say how trials are judged, and how many epochs a group may take: one line per length of the trials."""
    settings = search.settings
    said = []
    for epochs in dict.fromkeys(group.epochs for group in search.groups):
        total = settings.samples * epochs
        each = f"search: {settings.samples} samples per group, of at most {epochs} epochs"
        *rungs, _ = settings.rungs(epochs)
        if settings.pruner == "none" or not rungs:
            said.append(f"{each}, none of them stopped early")
            continue
        judged = f"judged after {', '.join(map(str, rungs))}"
        most = f"{int(settings.budget * total)} of {total} epochs in all (budget {settings.budget:g})"
        line = f"{each}, {judged}; {most}"
        if least_budget(settings, epochs) > settings.budget - 0.01:
            line += ", as few as it takes to find the best of them"
        said.append(line)
    return "\n".join(said)
