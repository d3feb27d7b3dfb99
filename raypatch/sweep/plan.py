"""What a sweep has left to do: planned trials minus finished trials, longest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raypatch.config import RunOptions, TrialConfig
from raypatch.models.flops import trial_facts
from raypatch.results import (
    DamagedFileError,
    NewerSchemaError,
    SweepPaths,
    TrialResult,
    read_result,
)
from raypatch.sweep.cost.estimate import known_seconds
from raypatch.trial_fields.length import training_length

STEP_SECONDS = 0.02
TRAINING_FLOPS_PER_SECOND = 2e11
"""Rough numbers of a small machine. They only order the trials; nothing reports them."""


@dataclass(frozen=True)
class Plan:
    """Trials of a sweep by state.

    todo: in the order of running. results: of the trials that are over, by trial id.
    """

    todo: tuple[TrialConfig, ...]
    results: Mapping[str, TrialResult]


def plan_sweep(
    trials: Sequence[TrialConfig],
    paths: SweepPaths,
    options: RunOptions,
    *,
    retry_failed: bool = False,
) -> Plan:
    """Compare the planned trials with what is on disk.

    A trial is over when its result.json can be read; a damaged one counts as not run.
    retry_failed: run failed trials again.
    """
    results: dict[str, TrialResult] = {}
    todo = []
    for config in trials:
        result = finished_result(paths, config.trial_id())
        if result is None or (retry_failed and result.status == "failed"):
            todo.append(config)
        else:
            results[config.trial_id()] = result
    # Longest first: a long trial that starts last would run alone at the end.
    todo.sort(key=lambda config: (-rough_seconds(config, options), config.trial_id()))
    return Plan(tuple(todo), results)


def finished_result(paths: SweepPaths, trial_id: str) -> TrialResult | None:
    """Return the trial's result; None when it is not over or result.json is damaged.

    Raises NewerSchemaError for one that a newer raypatch wrote.
    """
    try:
        return read_result(paths.trial(trial_id).result)
    except NewerSchemaError:
        # It is a DamagedFileError too, but to run the trial again would overwrite good work.
        raise
    except DamagedFileError:
        return None


def rough_seconds(config: TrialConfig, options: RunOptions) -> float:
    """Return a trial's duration, from an earlier `raypatch plan` on this device.

    Without one it is a guess, for ordering alone, that counts steps and arithmetic.
    """
    known = known_seconds(config, options)
    if known is not None:
        return known
    info, facts = trial_facts(config, options)
    length = training_length(config, info.training_images(config.train_fraction))
    # A backward pass counts as two forward ones.
    forward_passes = 3 * length.steps * config.batch_size + len(length.evaluations()) * info.counts[1]
    flops = forward_passes * 1e9 * facts.gflops
    return length.steps * STEP_SECONDS + flops / TRAINING_FLOPS_PER_SECOND
