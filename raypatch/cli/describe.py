"""What a field of a trial is, and what a study would run: as data, and as text for people."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from raypatch.config import TrialConfig, did_you_mean, field_facts
from raypatch.factors import Factor, word_value
from raypatch.fields import Role
from raypatch.study import Study
from raypatch.study.resolve import resolve_search, resolve_trials
from raypatch.words import counted

SHOWN_TRIALS = 12
TEXTS = {
    "dataset": "a name (`raypatch data list`), or the path of an .npz file",
    "model": "a name that timm knows (`raypatch models` lists them), torchvision/NAME, or module:NAME",
    "weights": "timm, random, or the path of a .safetensors or .pth file",
    "method": "finetune, linear_probe, knn, or module:NAME",
    "selection": "val_loss, or val_ and a metric such as val_auc",
    "task": "none, the name of a task, or module:NAME",
}
"""Allowed values of the fields that hold text."""


@dataclass(frozen=True)
class FieldDescription:
    """A field of a trial.

    allowed: its values in words. default: as text, empty where a value must be given.
    """

    name: str
    label: str
    role: str
    default: str
    allowed: str
    unit: str
    meaning: str


def describe_field(name: str) -> FieldDescription:
    """Return what a field of a trial is. Raises ValueError for an unknown one, with the near names."""
    if name not in TrialConfig.model_fields:
        raise ValueError(f"unknown field {name!r}; {did_you_mean(name, TrialConfig.model_fields)}")
    field, facts = TrialConfig.model_fields[name], field_facts(name)
    schema = TrialConfig.model_json_schema()["properties"][name]
    return FieldDescription(
        name=name,
        label=facts.label,
        role=facts.role,
        default=_default_of(name),
        allowed=TEXTS.get(name) or _allowed_values(schema),
        unit=facts.unit,
        meaning=field.description or "",
    )


def _default_of(name: str) -> str:
    field = TrialConfig.model_fields[name]
    if field.is_required():
        return ""
    return "none" if field.default is None else word_value(name, field.default)


def _allowed_values(schema: Mapping[str, Any]) -> str:
    """A JSON schema of one field in words: `a whole number from 1`, `step, cosine or constant`."""
    # A field that may be absent has two schemas: its values', and that of null.
    if "anyOf" in schema:
        return " or ".join(map(_allowed_values, schema["anyOf"]))
    if "enum" in schema:
        *first, last = map(str, schema["enum"])
        return f"{', '.join(first)} or {last}"
    if schema["type"] in ("null", "string"):
        return "none" if schema["type"] == "null" else "text"
    if schema["type"] == "boolean":
        return "true or false"
    words = ["a whole number" if schema["type"] == "integer" else "a number"]
    bounds = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "to",
        "exclusiveMaximum": "below",
    }
    for key, word in bounds.items():
        # The largest number of 32 bits is the computer's limit, nothing to tell people.
        if key in schema and schema[key] < 2**31:
            words.append(f"{word} {schema[key]:g}")
    return " ".join(words)


def fields_by_role() -> list[str]:
    """Return the names of all fields: those that are compared before the many hyperparameters."""
    return sorted(TrialConfig.model_fields, key=lambda name: get_args(Role).index(field_facts(name).role))


def list_fields(fields: Sequence[FieldDescription]) -> str:
    """Return a table of fields, one line each and its meaning beneath."""
    lines = []
    for field in fields:
        default = f"default {field.default}" if field.default else "required"
        unit = f" {field.unit}" if field.unit and field.default not in ("", "none") else ""
        lines.append(f"{field.name:16} {field.role:14} {default}{unit}; {field.allowed}")
        lines.append(f"{'':16} {field.meaning}")
    return "\n".join(lines)


@dataclass(frozen=True)
class StudyDescription:
    """What a study would run.

    factors: each with its levels and the fields that these set, and its baseline. settings: other
    axes that vary and their values. recipe: fields that all trials share and that differ from
    their defaults. rules: in words. search: what is searched, with samples per group. trials: id,
    level of each factor and fields of each; of a search its groups.
    """

    name: str
    question: str
    description: str
    factors: list[dict[str, Any]]
    settings: dict[str, list[str]]
    datasets: list[str]
    seeds: list[int]
    metric: str
    recipe: dict[str, Any]
    rules: list[str]
    search: dict[str, Any] | None
    trials: list[dict[str, Any]]

    def as_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """For people."""
        return "\n".join(_study_lines(self))


def describe_study(study: Study) -> StudyDescription:
    """Resolve a study and say what it would run.

    Raises ValueError for a wrong field, value, level or file.
    """
    # Each group of a search stands for its trials, whose levels are not drawn yet.
    levels: Mapping[str, tuple[str, ...]] = {}
    search = None
    if study.search is None:
        resolved = resolve_trials(study)
        trials, factors, levels = resolved.trials, resolved.factors, resolved.levels
    else:
        resolved_search = resolve_search(study)
        trials, factors = resolved_search.search.groups, resolved_search.factors
        search = study.search.model_dump(mode="json", by_alias=True, exclude_none=True)
    return StudyDescription(
        name=study.name,
        question=study.question,
        description=study.description,
        factors=[_describe_factor(factor) for factor in factors],
        settings=_other_axes(study, trials),
        datasets=_values_of("dataset", trials),
        seeds=sorted(_values_of("seed", trials)),
        metric=study.metric or "the task's own",
        recipe=_shared_fields(study, trials),
        rules=[_word_rule(rule.condition, rule.values, skip=rule.skip) for rule in study.when],
        search=search,
        trials=[_describe_trial(config, levels) for config in trials],
    )


def _values_of(name: str, trials: Sequence[TrialConfig]) -> list[Any]:
    """The values that trials have of a field, each once, in order."""
    return list({getattr(config, name): None for config in trials})


def _describe_trial(config: TrialConfig, levels: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    trial_id = config.trial_id()
    return {
        "trial_id": trial_id,
        "levels": list(levels.get(trial_id, ())),
        "fields": config.model_dump(mode="json", exclude_defaults=True),
    }


def _describe_factor(factor: Factor) -> dict[str, Any]:
    levels = [level.model_dump(mode="json") for level in factor.levels]
    return {
        "name": factor.name,
        "label": factor.label,
        "baseline": factor.baseline,
        "levels": levels,
    }


def _other_axes(study: Study, trials: Sequence[TrialConfig]) -> dict[str, list[str]]:
    """The axes that make settings: those that vary and are neither compared, nor dataset or seed."""
    settings = {}
    for name, axis in study.grid.items():
        if name in (*study.compared, "dataset", "seed") or len(axis) < 2:
            continue
        if isinstance(axis, dict):
            # An axis of named levels.
            settings[name] = list(axis)
        else:
            values = _values_of(name, trials)
            settings[name] = [word_value(name, value) for value in values]
    return settings


def _shared_fields(study: Study, trials: Sequence[TrialConfig]) -> dict[str, Any]:
    """The fields that all trials share, but for those at their defaults."""
    shown_elsewhere = {"dataset", "seed", *study.compared}
    if study.search is not None:
        # The groups have some value of a searched field, which none of the trials need have.
        shown_elsewhere |= study.search.fields.keys()
    shared = {}
    for name, field in TrialConfig.model_fields.items():
        values = _values_of(name, trials)
        if name not in shown_elsewhere and len(values) == 1 and values[0] != field.default:
            shared[name] = values[0]
    return shared


def _word_rule(condition: Mapping[str, Any], values: Mapping[str, Any], *, skip: bool) -> str:
    asked = " and ".join(f"{name} is {_word(value)}" for name, value in condition.items())
    return f"where {asked}: {'left out' if skip else _word_fields(values)}"


def _word(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def _word_fields(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _study_lines(study: StudyDescription) -> Iterator[str]:
    yield f"{study.name}: {study.question}"
    if study.description:
        yield study.description
    yield ""
    for factor in study.factors:
        yield f"{factor['label']} (* the baseline)"
        for level in factor["levels"]:
            mark = "*" if level["name"] == factor["baseline"] else " "
            # A level such as patch size 4 says already which field it sets.
            sets_itself = list(level["fields"]) == [factor["name"]]
            fields = "" if sets_itself else _word_fields(level["fields"])
            yield f"  {mark} {level['name']:20} {fields}".rstrip()
    for name, values in study.settings.items():
        yield f"settings   {name}: {', '.join(values)}"
    yield f"datasets   {', '.join(study.datasets)}"
    yield f"seeds      {', '.join(map(str, study.seeds))}"
    yield f"metric     {study.metric}"
    yield f"recipe     {_word_fields(study.recipe) or 'all defaults (`raypatch fields`)'}"
    for rule in study.rules:
        yield f"rule       {rule}"
    if study.search:
        searched = ", ".join(f"{name} {ends}" for name, ends in study.search["fields"].items())
        yield f"search     {searched}; {study.search['samples']} trials per group"
    yield ""
    how_many = counted(len(study.trials), "group" if study.search else "trial")
    if len(study.trials) > SHOWN_TRIALS:
        yield f"{how_many}; --json lists them"
        return
    yield f"{how_many}:"
    for trial in study.trials:
        yield f"  {trial['trial_id']}"
