"""What a sweep will cost on this device: seconds, from a short calibration, and memory."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from raypatch.config import RunOptions, TrialConfig, fields_of_role
from raypatch.factors import Factor, field_label, word_value
from raypatch.features.identity import feature_key
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.methods import feature_method, find_method, group_key
from raypatch.models.flops import trial_facts
from raypatch.models.memory import available_bytes, choose_micro_batch, is_recorded, peak_bytes, stack_bytes
from raypatch.study.resolve import StudySearch, StudyTrials
from raypatch.sweep.cost.calibration import Calibration, calibrate, known_calibration, step_kind
from raypatch.sweep.cost.head_timing import TOGETHER
from raypatch.sweep.cost.planned import Planned, planned_samples, planned_trials
from raypatch.sweep.cost.stack_timing import time_stacks
from raypatch.sweep.cost.stacks import together_at_most
from raypatch.sweep.cost.timing import Timing
from raypatch.training.writer import CHECKPOINT_SECONDS
from raypatch.trial_fields.length import training_length
from raypatch.words import align_columns


class TrialCost(BaseModel):
    """What one trial costs.

    tokens: per image, None for a model without. memory_bytes: peak on the device. seconds: of the
    whole trial. stack: how many such trials train as one model; the memory is then that of all.
    """

    model_config = ConfigDict(frozen=True)

    tokens: int | None
    parameters: int
    gflops: float
    micro_batch: int
    checkpointing: bool
    memory_bytes: int
    seconds: float
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


class PassCounter:
    """Says of trials, one after another, which of them needs a pass through its backbone that none before it made.

    store: the folder of features that are there already, None for none.
    """

    def __init__(self, options: RunOptions, store: Path | None) -> None:
        self._device = resolve_device(options.device)
        self._store = store
        self._made: set[str] = set()

    def is_needed(self, config: TrialConfig) -> bool:
        """Whether this trial's features are not there and nobody before it makes them."""
        if feature_method(config) is None:
            return False
        key = feature_key(config, resolve_precision(config.precision, self._device))
        if key in self._made:
            return False
        self._made.add(key)
        # The last split that is passed is test.
        return self._store is None or not (self._store / key / "test.npy").exists()


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
    return TrialCost(
        tokens=facts.tokens,
        parameters=facts.parameters,
        gflops=facts.gflops,
        micro_batch=micro_batch,
        checkpointing=checkpointing,
        memory_bytes=memory,
        seconds=_seconds(config, options, calibration, together),
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


def as_table(rows: Sequence[PlanRow]) -> str:
    """Rows as text, with the sum in hours beneath; the estimates are marked with ~."""
    named = [*rows[0].levels, *rows[0].settings]
    stacks = any(row.cost.stack > 1 for row in rows)
    numbers = ["trials", "tokens", "parameters", "GFLOPs", "micro-batch", "~GiB", "~hours"]
    if stacks:
        numbers.insert(1, "stack")
    table = [["dataset", *map(field_label, named), *numbers]]
    for row in rows:
        names = [row.dataset, *row.levels.values(), *row.settings.values()]
        cells = _number_cells(row)
        if stacks:
            cells.insert(1, str(row.cost.stack))
        table.append(names + cells)
    lines = align_columns(table, left=1 + len(named))
    trials, hours = _total(rows)
    lines.append(f"{trials} trials, about {hours:.2f} hours")
    passes = sum(row.passes for row in rows)
    if passes:
        word = "pass" if passes == 1 else "passes"
        lines.append(
            f"{passes} {word} through a frozen backbone among them, whose features all heads and neighbours share"
        )
    if stacks:
        lines.append("stack: so many seeds train as one model (--stack), whose memory is stated")
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
    """Return a trial's estimated seconds by an earlier calibration on this device, or None.

    Of a trial on stored features without the pass that makes them: see `known_pass_seconds`.
    """
    calibration = known_calibration(options)
    if calibration is None or step_kind(config, options) not in calibration.timings:
        return None
    return _seconds(config, options, calibration)


def known_pass_seconds(config: TrialConfig, options: RunOptions) -> float:
    """Return the estimated seconds of the pass that makes a trial's features; 0 without one, or where it is unknown."""
    calibration = known_calibration(options)
    if feature_method(config) is None or calibration is None or step_kind(config, options) not in calibration.timings:
        return 0.0
    return pass_seconds(config, options, calibration)


def pass_seconds(config: TrialConfig, options: RunOptions, calibration: Calibration) -> float:
    """Return the seconds of one pass of all images through the frozen backbone of a trial on stored features."""
    info, _ = trial_facts(config, options)
    return sum(info.counts) * calibration.timings[step_kind(config, options)].evaluation


def _seconds(config: TrialConfig, options: RunOptions, calibration: Calibration, together: int = 1) -> float:
    """A trial's seconds, of which `together` train together; of one on stored features its head's alone."""
    info, facts = trial_facts(config, options)
    timing = calibration.timings[step_kind(config, options)]
    train, val, test = info.counts
    length = training_length(config, info.training_images(config.train_fraction))
    if feature_method(config) is not None:
        evaluations = len(length.evaluations()) if timing.step else 0
        # At the end, val and test are predicted once more.
        scoring = timing.scoring * (evaluations + 1 + test / val)
        return length.steps * _head_step(timing, together) + scoring
    seen, predicted = val, val + test
    if config.makes_weights:
        # Nearest neighbours need the features of train too, and nothing is predicted at the end.
        seen, predicted = train + val, 0
    evaluations = len(length.evaluations())
    step = timing.step if together == 1 or timing.stacked is None else timing.stacked
    training = length.steps * step + evaluations * seen * timing.evaluation
    # A checkpoint has weights in float32 and their optimizer's moments; the first and the last evaluation have one.
    checkpoints = min(evaluations, 2 + training / CHECKPOINT_SECONDS)
    if config.makes_weights:
        checkpoints = evaluations
    copies = find_method(config.method).weight_copies
    writing = checkpoints * copies * 4 * facts.parameters / calibration.disk
    # After the last epoch the best weights predict both splits.
    return training + writing + predicted * timing.evaluation


def _head_step(timing: Timing, together: int) -> float:
    """Seconds of a step of one of so many heads: a part that all share, and one of each."""
    if timing.together is None:
        return timing.step
    each = max(0.0, (TOGETHER * timing.together - timing.step) / (TOGETHER - 1))
    shared = max(0.0, timing.step - each)
    return shared / together + each
