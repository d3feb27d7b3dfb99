"""What a search found, as a table and as recipes, by validation only."""

from pathlib import Path

import pytest

from raypatch.config import TrialConfig
from raypatch.factors import factor_of_field
from raypatch.results import Scores, SweepPaths, SweepRecord, TrialResult, write_config, write_json
from raypatch.search_settings import Search, SearchSettings
from raypatch.study import Study
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.tuning.recipes import apply_recipes, describe_search, summarize_search, write_recipes

SETTINGS = SearchSettings.model_validate({"fields": {"lr": {"loguniform": [1e-6, 1e-3]}}, "samples": 3})


def _scores(loss: float, accuracy: float = 0.5) -> Scores:
    return {"loss": loss, "accuracy": accuracy, "balanced_accuracy": accuracy, "auc": accuracy}


def _search(folder: Path, *, patch_size: int = 4, selection: str = "val_loss") -> tuple[SweepRecord, SweepPaths]:
    """Three trials: the best on test is the worst on validation, the lowest loss was stopped early."""
    paths = SweepPaths(folder)
    base = TrialConfig.model_validate(
        {"dataset": "derma", "patch_size": patch_size, "epochs": 9, "selection": selection}
    )
    trials = []
    cases = [
        (1e-5, "ok", _scores(0.5, 0.6), 0.9),
        (1e-4, "ok", _scores(0.4, 0.5), 0.1),
        (9e-4, "pruned", _scores(0.1), 0),
    ]
    for lr, status, val, test in cases:
        config = base.model_copy(update={"lr": lr})
        trial = paths.trial(config.trial_id())
        trial.folder.mkdir(parents=True)
        write_config(trial.config, config)
        shown = _scores(1 - test, test) if status == "ok" else None
        result = TrialResult.model_validate(
            {"trial_id": config.trial_id(), "status": status, "val": val, "test": shown, "epochs": 9}
        )
        write_json(trial.result, result)
        trials.append(config)
    record = SweepRecord(
        name="x",
        study="x",
        command=("raypatch", "tune"),
        created="",
        provenance={},
        search=Search(settings=SETTINGS, groups=(base,)),
        factors=(factor_of_field("patch_size", [patch_size]),),
        trials=tuple(trials),
    )
    return record, paths


@pytest.mark.parametrize(("selection", "lr"), [("val_loss", 1e-4), ("val_accuracy", 1e-5)])
def test_the_best_is_chosen_by_validation_among_trials_that_ran_through(
    tmp_path: Path, selection: str, lr: float
) -> None:
    (outcome,) = summarize_search(*_search(tmp_path, selection=selection))
    assert outcome.best is not None
    assert outcome.best.lr == lr
    assert outcome.counts == {"ok": 2, "pruned": 1}


def test_table_shows_value_score_and_cost(tmp_path: Path) -> None:
    record, paths = _search(tmp_path)
    lines = describe_search(record, summarize_search(record, paths)).splitlines()
    assert lines[0].split() == ["group", "best", "val_loss", "trials", "epochs", "of", "full"]
    assert lines[1].split() == ["dermamnist-p4", "lr=0.0001", "0.4000", "2", "ok,", "1", "pruned", "0/27", "0%"]


def _recipes(tmp_path: Path) -> Path:
    record, paths = _search(tmp_path / "run")
    write_recipes(paths.recipes, record, summarize_search(record, paths))
    return paths.recipes


def test_recipes_set_what_was_found_where_it_was_found(tmp_path: Path) -> None:
    space = Study.model_validate({"name": "x", "grid": {"dataset": ["derma"], "patch_size": ["4"], "seed": [0, 1]}})
    trials = resolve_trials(apply_recipes(space, _recipes(tmp_path))).trials
    assert [(config.lr, config.seed) for config in trials] == [(1e-4, 0), (1e-4, 1)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            {"dataset": ["blood"], "patch_size": [4]},
            "no recipe for bloodmnist, vit_small_patch16_224, patch size 4",
        ),
        (
            {"dataset": ["derma"], "patch_size": [4, 7]},
            "no recipe for dermamnist, .* patch size 7; it has dermamnist, .* patch size 4",
        ),
        ({"dataset": ["derma"], "patch_size": [4], "model": ["vit_tiny_patch16_224"]}, "no recipe .* vit_tiny"),
        ({"dataset": ["derma"], "patch_size": [4], "lr": [1e-3]}, "lr: both in .* and given as an axis"),
    ],
)
def test_recipes_for_other_trials_are_refused(tmp_path: Path, grid: dict[str, object], message: str) -> None:
    space = Study.model_validate({"name": "x", "grid": grid})
    path = _recipes(tmp_path)
    with pytest.raises(ValueError, match=message):
        apply_recipes(space, path)


@pytest.mark.parametrize("content", ["lr: 1", "[", "- {if: 3}", "- text"])
def test_other_files_are_no_recipes(tmp_path: Path, content: str) -> None:
    (tmp_path / "best.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"holds no recipes; give the best\.yaml"):
        apply_recipes(Study(name="x"), tmp_path / "best.yaml")


def test_recipes_of_earlier_versions_still_apply(tmp_path: Path) -> None:
    condition = "{dataset: dermamnist, model: vit_small_patch16_224, patch_size: 4}"
    (tmp_path / "best.yaml").write_text(f"- if: {condition}\n  set: {{lr: 0.0001}}\n")
    study = Study.model_validate({"name": "x", "grid": {"dataset": ["derma"], "patch_size": [4]}})
    (config,) = resolve_trials(apply_recipes(study, tmp_path / "best.yaml")).trials
    assert config.lr == 1e-4


def test_recipes_are_named_by_the_levels_of_the_factor(tmp_path: Path) -> None:
    record, paths = _search(tmp_path / "run")
    factor = factor_of_field("method", ["finetune", "linear_probe"])
    write_recipes(paths.recipes, record.model_copy(update={"factors": (factor,)}), summarize_search(record, paths))
    study = Study.model_validate(
        {"name": "x", "compare": "method", "fixed": {"patch_size": 4}, "grid": {"dataset": ["derma"]}}
    )
    apply_recipes(study.override({"method": ["finetune"]}), paths.recipes)
    with pytest.raises(ValueError, match=r"no recipe for dermamnist, .*linear_probe; it has dermamnist, .*finetune"):
        apply_recipes(study.override({"method": ["linear_probe"]}), paths.recipes)
