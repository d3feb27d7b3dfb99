"""What a sweep will cost on this device: seconds, from a short calibration, and memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from raypatch.config import RunOptions, TrialConfig, fields_of_role
from raypatch.factors import Factor, word_value
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.methods import feature_method, group_key
from raypatch.models.flops import trial_facts
from raypatch.models.memory import available_bytes, choose_micro_batch, is_recorded, peak_bytes, stack_bytes
from raypatch.study.resolve import StudySearch, StudyTrials
from raypatch.sweep.cost.planned import Planned, planned_samples, planned_trials
from raypatch.sweep.cost.seconds.calibration import calibrate, step_kind
from raypatch.sweep.cost.seconds.calibration_file import Calibration
from raypatch.sweep.cost.seconds.stack_timing import time_stacks
from raypatch.sweep.cost.seconds.trial_seconds import PassCounter, pass_seconds, trial_seconds
from raypatch.sweep.cost.stacks import together_at_most


class TrialCost(BaseModel):
    """What one trial costs.

    tokens: per image, None for a model without. memory_bytes: peak on the device. seconds: of the
    whole trial; scaled: by the arithmetic of another kind of step, since its own was not timed. stack:
    how many such trials train as one model; the memory is then that of all.
    """

    model_config = ConfigDict(frozen=True)

    tokens: int | None
    parameters: int
    gflops: float
    micro_batch: int
    checkpointing: bool
    memory_bytes: int
    seconds: float
    scaled: bool = False
    stack: int = 1


class PlanRow(BaseModel):
    """Trials of one dataset and one level of each factor that cost the same.

    levels: by factor. settings: by field what else tells the cost of the trials apart. cost: of
    each trial, whose seconds `seconds` sums up. passes: of all images through a frozen backbone,
    which these seconds count once for all trials that share the features.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    levels: dict[str, str]
    settings: dict[str, str]
    trials: int
    cost: TrialCost
    seconds: float
    passes: int = 0


_ByCost = dict[TrialCost, list[Planned]]


def plan_cost(
    study: StudyTrials | StudySearch,
    options: RunOptions,
    say: Callable[[str], object],
    *,
    recalibrate: bool = False,
    store: Path | None = None,
) -> list[PlanRow]:
    """Return the cost of a resolved study per dataset and level, calibrating what is not yet known.

    Trials of one dataset and level that cost differently have a row each kind, which shows the
    fields that tell them apart. The pass that makes stored features counts once, in the row of the
    first trial that needs it, and not at all where they lie in `store` already. A search counts all its
    samples, in at most the share of their
    epochs that its budget allows. say: told what is timed. recalibrate: time what is known, too.
    store: the folder of features of a run.
    Starts no training. Raises ValueError for wrong input.
    """
    planned = planned_samples(study) if isinstance(study, StudySearch) else planned_trials(study)
    options = options.model_copy(update={"files": {**options.files, **study.files}})
    configs = [each.config for each in planned]
    calibration = calibrate(configs, options, say, again=recalibrate)
    if isinstance(study, StudySearch):
        # Its trials are drawn one by one, and given up one by one.
        options = options.model_copy(update={"stack": "off"})
    else:
        calibration = time_stacks(calibration, configs, options, say)
    groups = _group_by_cost(planned, options, calibration)
    telling = _telling_fields(groups.values(), study.factors)
    names = [factor.name for factor in study.factors]
    passes = PassCounter(options, store)
    rows = []
    for (dataset, levels), by_cost in groups.items():
        named = dict(zip(names, levels, strict=True))
        for cost, members in by_cost.items():
            row = _plan_row(dataset, named, _settings_of(members, telling), cost, members)
            needed = [each.config for each in members if passes.is_needed(each.config)]
            seconds = sum(pass_seconds(config, options, calibration) for config in needed)
            rows.append(row.model_copy(update={"passes": len(needed), "seconds": row.seconds + seconds}))
    return rows


def _group_by_cost(
    planned: Sequence[Planned], options: RunOptions, calibration: Calibration
) -> dict[tuple[str, tuple[str, ...]], _ByCost]:
    """Trials by dataset and levels, and there by what one of them costs."""
    together = Counter(group_key(each.config) for each in planned)
    costs: dict[TrialConfig, TrialCost] = {}
    groups: dict[tuple[str, tuple[str, ...]], _ByCost] = {}
    for each in planned:
        # Seeds cost the same: one of them is looked at.
        kind = each.config.model_copy(update={"seed": 0})
        if kind not in costs:
            key = group_key(each.config)
            timing = calibration.timings[step_kind(kind, options)]
            size = 1 if key is None else min(together[key], together_at_most(kind, options, timing))
            costs[kind] = _trial_cost(kind, options, calibration, size)
        by_cost = groups.setdefault((each.config.dataset_label, each.levels), {})
        by_cost.setdefault(costs[kind], []).append(each)
    return groups


def _trial_cost(config: TrialConfig, options: RunOptions, calibration: Calibration, together: int) -> TrialCost:
    device = resolve_device(options.device)
    info, facts = trial_facts(config, options)
    precision = resolve_precision(config.precision, device)
    if options.micro_batch == "auto":
        free = available_bytes(device)
        micro_batch, checkpointing = choose_micro_batch(config, facts, precision, free)
    else:
        micro_batch, checkpointing = options.micro_batch, False
    recorded = device.type == "cuda" and is_recorded(config, facts, micro_batch)
    how: dict[str, Any] = {"micro_batch": micro_batch, "checkpointing": checkpointing, "recorded": recorded}
    memory = peak_bytes(config, info, facts, precision, **how)
    stack = together if feature_method(config) is None else 1
    if stack > 1:
        memory = stack_bytes(config, info, facts, precision, options, stack)
    timing = calibration.timings[step_kind(config, options)]
    return TrialCost(
        tokens=facts.tokens,
        parameters=facts.parameters,
        gflops=facts.gflops,
        micro_batch=micro_batch,
        checkpointing=checkpointing,
        memory_bytes=memory,
        seconds=trial_seconds(config, options, calibration, together),
        scaled=timing.scaled,
        stack=stack,
    )


def _telling_fields(groups: Iterable[_ByCost], factors: Sequence[Factor]) -> list[str]:
    """The fields by which trials of one dataset and level differ where they differ in cost."""
    # Dataset and level have columns of their own, and seeds cost the same.
    known = fields_of_role("block") | fields_of_role("repeat")
    for factor in factors:
        known |= factor.fields
    telling = []
    for name in TrialConfig.model_fields:
        if name not in known and any(_tells_apart(name, by_cost) for by_cost in groups):
            telling.append(name)
    return telling


def _tells_apart(name: str, by_cost: _ByCost) -> bool:
    """Whether kinds of one dataset and level have other values of a field."""
    kinds = {frozenset(_values_of(name, members)) for members in by_cost.values()}
    return len(kinds) > 1


def _values_of(name: str, members: Sequence[Planned]) -> list[Any]:
    """The values that trials have of a field, each once."""
    return list({getattr(each.config, name): None for each in members})


def _settings_of(members: Sequence[Planned], fields: Sequence[str]) -> dict[str, str]:
    settings = {}
    for name in fields:
        values = _values_of(name, members)
        settings[name] = ", ".join(word_value(name, value) for value in values)
    return settings


def _plan_row(
    dataset: str,
    levels: dict[str, str],
    settings: dict[str, str],
    cost: TrialCost,
    members: Sequence[Planned],
) -> PlanRow:
    # A search's stand-in counts for several trials, in the share of their epochs that runs.
    trials = sum(each.times for each in members)
    seconds = [each.times * each.share * cost.seconds for each in members]
    return PlanRow(
        dataset=dataset,
        levels=levels,
        settings=settings,
        trials=trials,
        cost=cost,
        seconds=sum(seconds),
    )
