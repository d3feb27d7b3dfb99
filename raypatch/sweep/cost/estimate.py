"""What a sweep will cost on this device: seconds from a short calibration, and memory, per dataset and level."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from raypatch.config import RunOptions, TrialConfig, fields_of_role
from raypatch.factors import Factor, field_label, word_value
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.methods import find_method
from raypatch.models.flops import trial_facts
from raypatch.models.memory import available_bytes, choose_micro_batch, peak_bytes
from raypatch.study.resolve import StudySearch, StudyTrials
from raypatch.sweep.cost.calibration import Calibration, calibrate, known_calibration, step_kind


class TrialCost(BaseModel):
    """What one trial costs.

    tokens: per image, None for a model without. memory_bytes: peak on the device. seconds: of the
    whole trial.
    """

    model_config = ConfigDict(frozen=True)

    tokens: int | None
    parameters: int
    gflops: float
    micro_batch: int
    checkpointing: bool
    memory_bytes: int
    seconds: float


class PlanRow(BaseModel):
    """Trials of one dataset and one level of each factor that cost the same.

    levels: by factor. settings: by field what else tells the cost of the trials apart. cost: of
    each trial, whose seconds `seconds` sums up.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    levels: dict[str, str]
    settings: dict[str, str]
    trials: int
    cost: TrialCost
    seconds: float


@dataclass(frozen=True)
class _Planned:
    """A trial to plan for. times: how many such there are, a search's stand-ins; share: of their epochs that run."""

    config: TrialConfig
    levels: tuple[str, ...]
    times: int = 1
    share: float = 1.0


def plan_cost(
    study: StudyTrials | StudySearch,
    options: RunOptions,
    say: Callable[[str], object],
    *,
    recalibrate: bool = False,
) -> list[PlanRow]:
    """Cost of a resolved study per dataset and level, calibrating what is not yet known. say: told what is timed.

    Trials of one dataset and level that cost differently have a row each kind, which shows the
    fields that tell them apart. A search counts all its samples, in at most the share of their
    epochs that its budget allows. recalibrate: time what is known, too. Starts no training.
    Raises ValueError for wrong input.
    """
    planned = _planned_samples(study) if isinstance(study, StudySearch) else _planned_trials(study)
    options = options.model_copy(update={"files": {**options.files, **study.files}})
    calibration = calibrate([each.config for each in planned], options, say, again=recalibrate)
    costs: dict[TrialConfig, TrialCost] = {}
    groups: dict[tuple[str, tuple[str, ...]], dict[TrialCost, list[_Planned]]] = {}
    for each in planned:
        kind = each.config.model_copy(update={"seed": 0})
        if kind not in costs:
            costs[kind] = _trial_cost(kind, options, calibration)
        group = groups.setdefault((each.config.dataset_label, each.levels), {})
        group.setdefault(costs[kind], []).append(each)
    telling = _telling_fields(groups.values(), study.factors)
    rows = []
    for (dataset, levels), by_cost in groups.items():
        named = {factor.name: level for factor, level in zip(study.factors, levels, strict=True)}
        for cost, members in by_cost.items():
            rows.append(_plan_row(dataset, named, _settings_of(members, telling), cost, members))
    return rows


def _planned_trials(study: StudyTrials) -> list[_Planned]:
    return [_Planned(config, study.levels[config.trial_id()]) for config in study.trials]


def _planned_samples(study: StudySearch) -> list[_Planned]:
    """The samples of a search: spread evenly over the levels where these are searched too.

    Any other searched field that changes the cost, such as the batch size, counts with the first
    of its values.
    """
    settings = study.search.settings
    share = 1.0 if settings.pruner == "none" else settings.budget
    planned = []
    for group in study.search.groups:
        configs = [group]
        for factor in study.factors:
            searched = settings.fields.get(factor.name)
            if searched is not None and searched.choices is not None:
                updates = [searched.fields(factor.name, value) for value in searched.choices]
                configs = [config.model_copy(update=fields) for config in configs for fields in updates]
        each, more = divmod(settings.samples, len(configs))
        for number, config in enumerate(configs):
            levels = tuple(factor.level_of(config) or "" for factor in study.factors)
            planned.append(_Planned(config, levels, times=each + (number < more), share=share))
    return [each for each in planned if each.times]


def _trial_cost(config: TrialConfig, options: RunOptions, calibration: Calibration) -> TrialCost:
    device = resolve_device(options.device)
    info, facts = trial_facts(config, options)
    precision = resolve_precision(config.precision, device)
    micro_batch, checkpointing = choose_micro_batch(config, facts, precision, available_bytes(device))
    if options.micro_batch != "auto":
        micro_batch, checkpointing = options.micro_batch, False
    memory = peak_bytes(config, info, facts, precision, micro_batch=micro_batch, checkpointing=checkpointing)
    return TrialCost(
        tokens=facts.tokens,
        parameters=facts.parameters,
        gflops=facts.gflops,
        micro_batch=micro_batch,
        checkpointing=checkpointing,
        memory_bytes=memory,
        seconds=_seconds(config, options, calibration),
    )


def _telling_fields(groups: Iterable[Mapping[TrialCost, Sequence[_Planned]]], factors: Sequence[Factor]) -> list[str]:
    """The fields by which trials of one dataset and level differ where they differ in cost."""
    known = fields_of_role("block") | fields_of_role("repeat")
    for factor in factors:
        known |= factor.fields
    telling = []
    for name in TrialConfig.model_fields:
        if name not in known and any(_tells_apart(name, by_cost) for by_cost in groups):
            telling.append(name)
    return telling


def _tells_apart(name: str, by_cost: Mapping[TrialCost, Sequence[_Planned]]) -> bool:
    """Whether kinds of one dataset and level have other values of a field."""
    values = {frozenset(getattr(each.config, name) for each in members) for members in by_cost.values()}
    return len(values) > 1


def _settings_of(members: Sequence[_Planned], fields: Sequence[str]) -> dict[str, str]:
    settings = {}
    for name in fields:
        values = dict.fromkeys(getattr(each.config, name) for each in members)
        settings[name] = ", ".join(word_value(name, value) for value in values)
    return settings


def _plan_row(
    dataset: str,
    levels: dict[str, str],
    settings: dict[str, str],
    cost: TrialCost,
    members: Sequence[_Planned],
) -> PlanRow:
    return PlanRow(
        dataset=dataset,
        levels=levels,
        settings=settings,
        trials=sum(each.times for each in members),
        cost=cost,
        seconds=sum(each.times * each.share * cost.seconds for each in members),
    )


def as_table(rows: Sequence[PlanRow]) -> str:
    """Rows as text, with the sum in hours beneath; the estimates are marked with ~."""
    named = [*rows[0].levels, *rows[0].settings]
    numbers = ("trials", "tokens", "parameters", "GFLOPs", "micro-batch", "~GiB", "~hours")
    table = [["dataset", *map(field_label, named), *numbers]]
    for row in rows:
        cost = row.cost
        table.append(
            [
                row.dataset,
                *row.levels.values(),
                *row.settings.values(),
                str(row.trials),
                "–" if cost.tokens is None else f"{cost.tokens:,}",
                f"{cost.parameters:,}",
                f"{cost.gflops:.4g}",
                f"{cost.micro_batch}{'*' if cost.checkpointing else ''}",
                f"{cost.memory_bytes / 2**30:.2f}",
                f"{row.seconds / 3600:.3f}",
            ]
        )
    lines = _aligned(table, left=1 + len(named))
    lines.append(f"{sum(row.trials for row in rows)} trials, about {sum(row.seconds for row in rows) / 3600:.2f} hours")
    if any(row.cost.checkpointing for row in rows):
        lines.append("* with activation checkpointing")
    return "\n".join(lines)


def _aligned(table: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """The lines of a table: the first `left` columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cells.append(cell.ljust(width) if number < left else cell.rjust(width))
        lines.append("  ".join(cells))
    return lines


def as_json(rows: Sequence[PlanRow]) -> str:
    """Rows and sums as JSON."""
    listed: list[dict[str, Any]] = []
    for row in rows:
        content = row.model_dump()
        cost = content.pop("cost")
        cost["seconds_per_trial"] = cost.pop("seconds")
        listed.append(content | cost)
    total = {
        "trials": sum(row.trials for row in rows),
        "hours": sum(row.seconds for row in rows) / 3600,
    }
    return json.dumps({"rows": listed, **total}, indent=1)


def known_seconds(config: TrialConfig, options: RunOptions) -> float | None:
    """Estimated seconds of a trial from an earlier calibration on this device; None where there is none."""
    calibration = known_calibration(options)
    if calibration is None or step_kind(config, options) not in calibration.timings:
        return None
    return _seconds(config, options, calibration)


def _seconds(config: TrialConfig, options: RunOptions, calibration: Calibration) -> float:
    info, facts = trial_facts(config, options)
    timing = calibration.timings[step_kind(config, options)]
    train, val, test = info.counts
    copies = find_method(config.method).weight_copies
    epoch = math.ceil(train * config.train_fraction / config.batch_size) * timing.step + val * timing.evaluation
    epoch += copies * 4 * facts.parameters / calibration.disk
    return config.epochs * epoch + (val + test) * timing.evaluation
