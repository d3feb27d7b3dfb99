"""What a search found: the best trial of each group, by validation only, as recipes for other runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from raypatch.config import TrialConfig, field_facts
from raypatch.factors import word_value
from raypatch.results import DamagedFileError, SweepPaths, SweepRecord, read_epochs, read_result
from raypatch.search_settings import Search
from raypatch.selection import select_best, selection_score
from raypatch.storage.files import write_atomically
from raypatch.study import Study, WhenRule
from raypatch.study.resolve import resolve_trials
from raypatch.words import align_columns


@dataclass(frozen=True)
class GroupOutcome:
    """How a group's search stands.

    best, score: the trial with the best selection score on validation among those that ran
    through; None before there is one. counts: trials by status. epochs: spent; full_epochs: what
    as many full trainings would have cost.
    """

    label: str
    base: TrialConfig
    best: TrialConfig | None
    score: float | None
    counts: Counter[str]
    epochs: int
    full_epochs: int
    seconds: float


def summarize_search(record: SweepRecord, paths: SweepPaths) -> list[GroupOutcome]:
    """Return each group's outcome, from the trial folders."""
    assert record.search is not None
    search = record.search
    members: dict[int, list[TrialConfig]] = {}
    for config in record.trials:
        index = search.group_of(config)
        assert index is not None, "sweep.json of a search holds its own trials only"
        members.setdefault(index, []).append(config)
    outcomes = []
    for index, (label, base) in enumerate(zip(search.labels, search.groups, strict=True)):
        # A group may have no trial yet.
        configs = members.get(index, [])
        outcomes.append(_summarize_group(label, base, configs, search.settings.samples, paths))
    return outcomes


def _summarize_group(
    label: str, base: TrialConfig, configs: Sequence[TrialConfig], samples: int, paths: SweepPaths
) -> GroupOutcome:
    counts: Counter[str] = Counter()
    scores: dict[TrialConfig, float] = {}
    epochs, seconds = 0, 0.0
    for config in configs:
        trial = paths.trial(config.trial_id())
        try:
            result, rows = read_result(trial.result), read_epochs(trial.epochs)
        except DamagedFileError:
            # As everywhere, a damaged trial counts as not run.
            result, rows = None, []
        counts[result.status if result else "unfinished"] += 1
        epochs += len(rows)
        seconds += sum(row.seconds for row in rows)
        score = selection_score(config, result) if result else None
        if score is not None:
            scores[config] = score
    best = select_best(scores.items())
    best_score = scores[best] if best else None
    full_epochs = samples * base.epochs
    return GroupOutcome(label, base, best, best_score, counts, epochs, full_epochs, seconds)


def describe_values(config: TrialConfig, search: Search) -> str:
    """What a trial was drawn with, for people: `lr=3.2e-05 batch_size=8`, `backbone=ResNet-18`."""
    texts = []
    for name, value in search.drawn_values(config).items():
        texts.append(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}")
    return " ".join(texts)


def describe_search(record: SweepRecord, outcomes: Sequence[GroupOutcome]) -> str:
    """A table for people: of each group the best values, their score, its trials and its epochs."""
    assert record.search is not None
    selection = record.search.groups[0].selection
    rows: list[tuple[str, ...]] = [("group", "best", selection, "trials", "epochs", "of full")]
    for outcome in outcomes:
        best = describe_values(outcome.best, record.search) if outcome.best else "none finished"
        score = f"{outcome.score:.4f}" if outcome.score is not None else ""
        counts = sorted(outcome.counts.items())
        trials = ", ".join(f"{count} {status}" for status, count in counts)
        spent = f"{outcome.epochs}/{outcome.full_epochs}"
        share = f"{outcome.epochs / outcome.full_epochs:.0%}"
        rows.append((outcome.label, best, score, trials, spent, share))
    return "\n".join(align_columns(rows))


def write_recipes(path: Path, record: SweepRecord, outcomes: Sequence[GroupOutcome]) -> None:
    """Write best.yaml: a when-rule for each group that has a best trial.

    The rule's `if` names the dataset, the model and the fields of the levels, its `set` what was
    searched beside. Of levels that were searched together the rule is for the best one.
    """
    assert record.search is not None
    named = _naming_fields(record)
    searched = sorted_fields(set(record.search.searched_fields) - set(named))
    rules = []
    for outcome in outcomes:
        if outcome.best is not None:
            fields = outcome.best.model_dump(mode="json")
            # A field that is absent, as the patch size of a CNN, can be no condition.
            condition = {name: fields[name] for name in named if fields[name] is not None}
            values = {name: fields[name] for name in searched}
            rules.append({"if": condition, "set": values})
    selection = record.search.groups[0].selection
    head = (
        f"# The best of {record.search.settings.samples} trials per group by {selection}:\n"
        f"#   {' '.join(record.command)}\n"
        f"# To use it: raypatch run grid --recipes {path}\n"
    )
    write_atomically(path, (head + yaml.safe_dump(rules, sort_keys=False)).encode())


def _naming_fields(record: SweepRecord) -> list[str]:
    """The fields that say which trials a recipe is for: what tells groups and levels apart."""
    assert record.search is not None
    # The model is always among them: another one wants a learning rate of its own.
    named = {"dataset", "model"}
    for factor in record.factors:
        named |= factor.fields
    first, *others = record.search.groups
    for group in others:
        for name, value in group:
            if value != getattr(first, name):
                named.add(name)
    return sorted_fields(named)


def sorted_fields(names: Iterable[str]) -> list[str]:
    """Names of fields in the order of TrialConfig, the dataset first."""
    wanted = set(names)
    return [name for name in TrialConfig.model_fields if name in wanted]


def load_recipes(path: Path) -> tuple[WhenRule, ...]:
    """Read a best.yaml. Raises ValueError."""
    rules = TypeAdapter(tuple[WhenRule, ...])
    try:
        return rules.validate_python(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"cannot read the recipes {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        way_out = "give the best.yaml of a `raypatch tune` run folder"
        raise ValueError(f"{path} holds no recipes; {way_out}") from error


def apply_recipes(study: Study, path: Path) -> Study:
    """Return the study with the recipes of a best.yaml, one for each of its trials.

    Raises ValueError when a trial has none: tuned and untuned trials do not compare.
    """
    rules = load_recipes(path)
    named: set[str] = set()
    searched: set[str] = set()
    for rule in rules:
        named |= rule.condition.keys()
        searched |= rule.values.keys()
    given_twice = searched & set(study.grid)
    if given_twice:
        raise ValueError(f"{', '.join(sorted(given_twice))}: both in {path} and given as an axis; keep one")
    without: list[str] = []
    for config in resolve_trials(study).trials:
        fields = config.model_dump()
        if any(rule.holds(fields) for rule in rules):
            continue
        text = _describe_condition({name: fields[name] for name in sorted_fields(named)})
        # Seeds of one setting read the same.
        if text not in without:
            without.append(text)
    if without:
        missing = "; ".join(without[:5])
        known = "; ".join(_describe_condition(rule.condition) for rule in rules)
        raise ValueError(
            f"{path} has no recipe for {missing}; it has {known}. Narrow it (`raypatch run` with --dataset and --set),"
            " or search the others too"
        )
    return study.add_rules(rules)


def _describe_condition(fields: Mapping[str, Any]) -> str:
    """Which trials a recipe is for, in words: `dermamnist, patch size 4, vit_small_patch16_224`."""
    texts = []
    for name, value in fields.items():
        if value is None:
            continue
        # A condition may also ask for a fact of the dataset, such as its dimensions.
        if name in TrialConfig.model_fields:
            texts.append(field_facts(name).phrase.format(word_value(name, value)))
        else:
            texts.append(f"{name} {value}")
    return ", ".join(texts)
