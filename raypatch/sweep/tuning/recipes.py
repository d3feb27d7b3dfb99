"""What a search found: the best trial of each group, by validation only, and recipes that other runs can use."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from raypatch.config import TrialConfig
from raypatch.files import write_atomically
from raypatch.resolve import resolve_trials
from raypatch.results import DamagedFileError, SweepPaths, SweepRecord, read_epochs, read_result
from raypatch.search_settings import Search
from raypatch.selection import select_best, selection_score
from raypatch.study import Study, WhenRule

NAMED_BY = ("dataset", "model", "patch_size")
"""Fields that say which trials a recipe is for."""


@dataclass(frozen=True)
class GroupOutcome:
    """How a group's search stands.

    best, score: the trial with the best selection figure on validation among those that ran through; None before
    there is one. counts: trials by status. epochs: spent; full_epochs: what as many full trainings would have cost.
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
    members: list[list[TrialConfig]] = [[] for _ in search.groups]
    for config in record.trials:
        index = search.group_of(config)
        assert index is not None, "sweep.json of a search holds its own trials only"
        members[index].append(config)
    return [
        _summarize_group(label, base, configs, search.settings.samples, paths)
        for label, base, configs in zip(search.labels, search.groups, members, strict=True)
    ]


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
            result, rows = None, []
        counts[result.status if result else "unfinished"] += 1
        epochs, seconds = epochs + len(rows), seconds + sum(row.seconds for row in rows)
        if result and (score := selection_score(config, result)) is not None:
            scores[config] = score
    best = select_best(scores.items())
    score = scores[best] if best else None
    return GroupOutcome(label, base, best, score, counts, epochs, samples * base.epochs, seconds)


def describe_values(config: TrialConfig, search: Search) -> str:
    """The searched fields of a trial for people: `lr=3.2e-05 batch_size=8`."""
    values = search.drawn_values(config)
    return " ".join(f"{name}={f'{value:.3g}' if isinstance(value, float) else value}" for name, value in values.items())


def describe_search(record: SweepRecord, outcomes: Sequence[GroupOutcome]) -> str:
    """A table for people: each group's best values, their score, its trials, and epochs spent against the full cost."""
    assert record.search is not None
    rows: list[tuple[str, ...]] = [("group", "best", record.search.groups[0].selection, "trials", "epochs", "of full")]
    for outcome in outcomes:
        best = describe_values(outcome.best, record.search) if outcome.best else "none finished"
        score = f"{outcome.score:.4f}" if outcome.score is not None else ""
        trials = ", ".join(f"{count} {status}" for status, count in sorted(outcome.counts.items()))
        spent = f"{outcome.epochs}/{outcome.full_epochs}"
        rows.append((outcome.label, best, score, trials, spent, f"{outcome.epochs / outcome.full_epochs:.0%}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_recipes(path: Path, record: SweepRecord, outcomes: Sequence[GroupOutcome]) -> None:
    """Write best.yaml: a when-rule per group that has a best trial. Of patch sizes searched together the best one's."""
    assert record.search is not None
    rules = []
    for outcome in outcomes:
        if outcome.best is not None:
            fields = outcome.best.model_dump(mode="json")
            names = [name for name in record.search.settings.fields if name not in NAMED_BY]
            rules.append(
                {"if": {name: fields[name] for name in NAMED_BY}, "set": {name: fields[name] for name in names}}
            )
    head = (
        f"# The best of {record.search.settings.samples} trials per group by {record.search.groups[0].selection}:\n"
        f"#   {' '.join(record.command)}\n"
        f"# To use it: raypatch run grid --recipes {path}\n"
    )
    write_atomically(path, (head + yaml.safe_dump(rules, sort_keys=False)).encode())


def load_recipes(path: Path) -> tuple[WhenRule, ...]:
    """Read a best.yaml. Raises ValueError."""
    try:
        return TypeAdapter(tuple[WhenRule, ...]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"cannot read the recipes {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ValueError(f"{path} holds no recipes; give the best.yaml of a `raypatch tune` run folder") from error


def apply_recipes(study: Study, path: Path) -> Study:
    """Return the space with the recipes of a best.yaml, one for each of its trials.

    Raises ValueError when a trial has none: tuned and untuned trials do not compare.
    """
    rules = load_recipes(path)
    given = {name for rule in rules for name in rule.values} & set(study.grid)
    if given:
        raise ValueError(f"{', '.join(sorted(given))}: both in {path} and given as an axis; keep one")
    without = {}
    for config in resolve_trials(study).trials:
        if not any(rule.holds(config.model_dump()) for rule in rules):
            without[f"{config.dataset_label} with {config.model} at patch size {config.patch_size}"] = config
    if without:
        known = ", ".join(f"{rule.condition.get('dataset')} at {rule.condition.get('patch_size')}" for rule in rules)
        raise ValueError(
            f"{path} has no recipe for {'; '.join(list(without)[:5])}; it has {known}."
            " Narrow the run with --dataset, --patch-size and --model, or search the others too"
        )
    return study.add_rules(rules)
