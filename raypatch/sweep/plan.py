"""What a sweep has left to do: planned trials minus finished trials, longest first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raypatch.config import RunOptions, TrialConfig
from raypatch.methods import feature_method
from raypatch.models.flops import trial_facts
from raypatch.results import (
    DamagedFileError,
    NewerSchemaError,
    SweepPaths,
    TrialResult,
    read_result,
)
from raypatch.sweep.cost.seconds.trial_seconds import PassCounter, known_pass_seconds, known_seconds
from raypatch.trial_fields.length import training_length
from raypatch.trial_fields.objective import views_as_images

STEP_SECONDS = 0.02
HEAD_STEP_SECONDS = 0.0005
TRAINING_FLOPS_PER_SECOND = 2e11
"""Rough numbers of a small machine. They only order the trials; nothing reports them."""


@dataclass(frozen=True)
class Plan:
    """Trials of a sweep by state.

    todo: in the order of running. seconds: about what each of these takes, by trial id. results: of
    the trials that are over, by trial id.
    """

    todo: tuple[TrialConfig, ...]
    seconds: Mapping[str, float]
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
    results = finished_results(trials, paths)
    todo: dict[str, TrialConfig] = {}
    seconds: dict[str, float] = {}
    for config in trials:
        trial_id = config.trial_id()
        result = results.get(trial_id)
        if result is None or (retry_failed and result.status == "failed"):
            results.pop(trial_id, None)
            todo[trial_id] = config
            seconds[trial_id] = rough_seconds(config, options)
    # Longest first: a long trial that starts last would run alone at the end. One that others wait for counts with
    # the longest of them, which also brings it before all of them.
    ahead = _seconds_ahead(todo, seconds)
    in_order = sorted(todo, key=lambda trial_id: (-ahead[trial_id], trial_id))
    ordered = tuple(todo[trial_id] for trial_id in in_order)
    return Plan(ordered, _count_passes_once(ordered, seconds, paths, options), results)


def _seconds_ahead(todo: Mapping[str, TrialConfig], seconds: Mapping[str, float]) -> dict[str, float]:
    """By trial the seconds of it and of the longest chain of trials that start from its weights."""
    ahead = dict(seconds)
    # A chain is as long as there are stages: each round passes its seconds one trial up.
    for _ in todo:
        before = dict(ahead)
        for trial_id, config in todo.items():
            parent = config.parent
            if parent is not None and parent in todo:
                ahead[parent] = max(ahead[parent], seconds[parent] + ahead[trial_id])
        if ahead == before:
            break
    return ahead


def finished_results(trials: Iterable[TrialConfig], paths: SweepPaths) -> dict[str, TrialResult]:
    """Return the results of those trials that are over, by trial id."""
    # Listed once: to look for the files of thousands of trials, each by its name, takes long.
    begun = {trial.folder.name for trial in paths.trial_folders()}
    results = {}
    for config in trials:
        trial_id = config.trial_id()
        result = finished_result(paths, trial_id) if trial_id in begun else None
        if result is not None:
            results[trial_id] = result
    return results


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
        return known + known_pass_seconds(config, options)
    info, facts = trial_facts(config, options)
    length = training_length(config, info.training_images(config.train_fraction))
    if feature_method(config) is not None:
        return sum(info.counts) * 1e9 * facts.gflops / TRAINING_FLOPS_PER_SECOND + length.steps * HEAD_STEP_SECONDS
    # A backward pass counts as two forward ones.
    images = length.steps * config.batch_size
    if config.makes_weights:
        images = int(images * views_as_images(config, config.image_size, config.patch_size))
    forward_passes = 3 * images + len(length.evaluations()) * info.counts[1]
    flops = forward_passes * 1e9 * facts.gflops
    return length.steps * STEP_SECONDS + flops / TRAINING_FLOPS_PER_SECOND


def _count_passes_once(
    todo: Sequence[TrialConfig], seconds: Mapping[str, float], paths: SweepPaths, options: RunOptions
) -> dict[str, float]:
    """The seconds of each trial, a pass for features in those of the first that needs it alone."""
    passes = PassCounter(options, paths.features)
    expected = {}
    for config in todo:
        trial_id = config.trial_id()
        expected[trial_id] = seconds[trial_id]
        if feature_method(config) is not None and not passes.is_needed(config):
            expected[trial_id] -= known_pass_seconds(config, options)
    return expected
