"""What a sweep will cost on this device: seconds, from a short calibration, and memory."""

import json
from collections.abc import Callable, Iterable, Sequence
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
from raypatch.sweep.cost.planned import Planned, planned_samples, planned_trials
from raypatch.trial_fields.length import training_length
from raypatch.words import align_columns


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


_ByCost = dict[TrialCost, list[Planned]]


def plan_cost(
    study: StudyTrials | StudySearch,
    options: RunOptions,
    say: Callable[[str], object],
    *,
    recalibrate: bool = False,
) -> list[PlanRow]:
    """Return the cost of a resolved study per dataset and level, calibrating what is not yet known.

    Trials of one dataset and level that cost differently have a row each kind, which shows the
    fields that tell them apart. A search counts all its samples, in at most the share of their
    epochs that its budget allows. say: told what is timed. recalibrate: time what is known, too.
    Starts no training. Raises ValueError for wrong input.
    """
    planned = planned_samples(study) if isinstance(study, StudySearch) else planned_trials(study)
    options = options.model_copy(update={"files": {**options.files, **study.files}})
    calibration = calibrate([each.config for each in planned], options, say, again=recalibrate)
    groups = _group_by_cost(planned, options, calibration)
    telling = _telling_fields(groups.values(), study.factors)
    names = [factor.name for factor in study.factors]
    rows = []
    for (dataset, levels), by_cost in groups.items():
        named = dict(zip(names, levels, strict=True))
        for cost, members in by_cost.items():
            rows.append(_plan_row(dataset, named, _settings_of(members, telling), cost, members))
    return rows


def _group_by_cost(
    planned: Sequence[Planned], options: RunOptions, calibration: Calibration
) -> dict[tuple[str, tuple[str, ...]], _ByCost]:
    """Trials by dataset and levels, and there by what one of them costs."""
    costs: dict[TrialConfig, TrialCost] = {}
    groups: dict[tuple[str, tuple[str, ...]], _ByCost] = {}
    for each in planned:
        # Seeds cost the same: one of them is looked at.
        kind = each.config.model_copy(update={"seed": 0})
        if kind not in costs:
            costs[kind] = _trial_cost(kind, options, calibration)
        by_cost = groups.setdefault((each.config.dataset_label, each.levels), {})
        by_cost.setdefault(costs[kind], []).append(each)
    return groups


def _trial_cost(config: TrialConfig, options: RunOptions, calibration: Calibration) -> TrialCost:
    device = resolve_device(options.device)
    info, facts = trial_facts(config, options)
    precision = resolve_precision(config.precision, device)
    if options.micro_batch == "auto":
        free = available_bytes(device)
        micro_batch, checkpointing = choose_micro_batch(config, facts, precision, free)
    else:
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


def as_table(rows: Sequence[PlanRow]) -> str:
    """Rows as text, with the sum in hours beneath; the estimates are marked with ~."""
    named = [*rows[0].levels, *rows[0].settings]
    numbers = ("trials", "tokens", "parameters", "GFLOPs", "micro-batch", "~GiB", "~hours")
    table = [["dataset", *map(field_label, named), *numbers]]
    for row in rows:
        names = [row.dataset, *row.levels.values(), *row.settings.values()]
        table.append(names + _number_cells(row))
    lines = align_columns(table, left=1 + len(named))
    trials, hours = _total(rows)
    lines.append(f"{trials} trials, about {hours:.2f} hours")
    if any(row.cost.checkpointing for row in rows):
        lines.append("* with activation checkpointing")
    return "\n".join(lines)


def _number_cells(row: PlanRow) -> list[str]:
    """The numbers of a row as text, in the order of the table's headings."""
    cost = row.cost
    # A network without tokens has a dash there.
    tokens = "–" if cost.tokens is None else f"{cost.tokens:,}"
    mark = "*" if cost.checkpointing else ""
    return [
        str(row.trials),
        tokens,
        f"{cost.parameters:,}",
        f"{cost.gflops:.4g}",
        f"{cost.micro_batch}{mark}",
        f"{cost.memory_bytes / 2**30:.2f}",
        f"{row.seconds / 3600:.3f}",
    ]


def _total(rows: Sequence[PlanRow]) -> tuple[int, float]:
    """Trials and hours of all rows."""
    trials = sum(row.trials for row in rows)
    return trials, sum(row.seconds for row in rows) / 3600


def as_json(rows: Sequence[PlanRow], **more: object) -> str:
    """Rows and sums as JSON, and what else is to stand beside them."""
    listed: list[dict[str, Any]] = []
    for row in rows:
        content = row.model_dump()
        cost = content.pop("cost")
        cost["seconds_per_trial"] = cost.pop("seconds")
        listed.append(content | cost)
    trials, hours = _total(rows)
    return json.dumps({"rows": listed, "trials": trials, "hours": hours, **more}, indent=1)


def known_seconds(config: TrialConfig, options: RunOptions) -> float | None:
    """Return a trial's estimated seconds by an earlier calibration on this device, or None."""
    calibration = known_calibration(options)
    if calibration is None or step_kind(config, options) not in calibration.timings:
        return None
    return _seconds(config, options, calibration)


def _seconds(config: TrialConfig, options: RunOptions, calibration: Calibration) -> float:
    info, facts = trial_facts(config, options)
    timing = calibration.timings[step_kind(config, options)]
    _, val, test = info.counts
    length = training_length(config, info.training_images(config.train_fraction))
    # Each evaluation ends with a checkpoint, of weights in float32 and their optimizer's moments.
    copies = find_method(config.method).weight_copies
    evaluation = val * timing.evaluation + copies * 4 * facts.parameters / calibration.disk
    # After the last epoch the best weights predict both splits.
    training = length.steps * timing.step + len(length.evaluations()) * evaluation
    return training + (val + test) * timing.evaluation
