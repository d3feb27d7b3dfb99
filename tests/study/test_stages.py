"""Stages: a trial of its own for all that start from it, known before it runs; refusals that name the way out."""

from pathlib import Path

import pytest
from staged import STAGE, staged_study

from raypatch.config import TrialConfig, make_config
from raypatch.study import Study
from raypatch.study.files import default_run_name
from raypatch.study.resolve import resolve_trials

from tiny import make_images


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_images(tmp_path / "a.npz")


def test_a_stage_is_one_trial_for_all_that_start_from_it(tmp_path: Path, data: Path) -> None:
    other = make_images(tmp_path / "b.npz", classes=3)
    resolved = resolve_trials(staged_study([data, other], patch_size=[4, 8]))
    assert len(resolved.trials) == 16
    assert len(resolved.stages) == 4
    assert resolved.planned[:4] == resolved.stages
    ids = {stage.trial_id(): stage for stage in resolved.stages}
    children = [config for config in resolved.trials if config.parent]
    assert {config.parent for config in children} == set(ids)
    for child in children:
        assert child.parent is not None
        stage = ids[child.parent]
        assert (stage.method, stage.objective, stage.seed) == ("pretrain", "dino", 0)
        assert (stage.dataset, stage.patch_size, stage.model) == (child.dataset, child.patch_size, child.model)
        assert resolved.levels[child.trial_id()] == ("in-domain",)
    assert not ids.keys() & resolved.levels.keys()
    assert resolve_trials(staged_study([data, other], patch_size=[4, 8])) == resolved


def test_the_weights_of_a_stage_are_one_level_on_all_datasets(tmp_path: Path, data: Path) -> None:
    other = make_images(tmp_path / "b.npz", classes=3)
    content = staged_study([data, other]).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    del content["grid"]["start"]
    content["grid"]["weights"] = ["random", "stage:dino"]
    content |= {"compare": ["weights"], "baseline": {"weights": "stage:dino"}}
    resolved = resolve_trials(Study.model_validate(content))
    (factor,) = resolved.factors
    assert factor.names == ("random", "stage:dino")
    assert factor.baseline == "stage:dino"
    assert {resolved.levels[config.trial_id()] for config in resolved.trials if config.parent} == {("stage:dino",)}


def test_a_stage_may_start_from_another(data: Path) -> None:
    study = staged_study(data)
    first = STAGE | {"epochs": 1}
    chained = study.model_copy(update={"stages": {"first": first, "dino": STAGE | {"weights": "stage:first"}}})
    resolved = resolve_trials(chained)
    assert [stage.epochs for stage in resolved.stages] == [1, 2]
    assert resolved.stages[1].parent == resolved.stages[0].trial_id()


def test_a_field_of_a_stage_is_set_by_its_name(data: Path) -> None:
    study = staged_study(data)
    changed = study.override({"dino.epochs": [5], "epochs": [3]})
    resolved = resolve_trials(changed)
    assert {stage.epochs for stage in resolved.stages} == {5}
    assert {config.epochs for config in resolved.trials} == {3}
    assert default_run_name(changed, study) == "tiny-epochs3-dino.epochs5"
    with pytest.raises(ValueError, match="one value"):
        study.override({"dino.epochs": [1, 2]})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"other": STAGE}, "no stage 'dino'"),
        ({"dino": STAGE | {"epoch": 3}}, "unknown field 'epoch'"),
        ({"dino": STAGE | {"method": "finetune"}}, "leave it out"),
        ({"dino": STAGE | {"weights": "stage:dino"}}, "dino -> dino start from each other"),
        ({"a b": STAGE}, "letters, digits"),
    ],
)
def test_wrong_stages_are_refused(data: Path, stages: dict[str, object], message: str) -> None:
    content = staged_study(data).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    with pytest.raises(ValueError, match=message):
        resolve_trials(Study.model_validate(content | {"stages": stages}))


def test_a_stage_is_only_of_a_study() -> None:
    with pytest.raises(ValueError, match="list it under `stages:`"):
        make_config({"dataset": "breastmnist", "weights": "stage:dino"})
    assert TrialConfig(dataset="breastmnist").parent is None
