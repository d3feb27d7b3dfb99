"""Finding out before anything runs: fields, study, spaces, version, and names completed by the shell."""

import json
from pathlib import Path

import pytest

import raypatch as package
from raypatch.cli import options
from raypatch.config import TrialConfig
from raypatch.study import shipped_studies

from commands import Command


def test_every_field_is_listed_with_role_default_values_and_meaning(raypatch: Command) -> None:
    code, out, _ = raypatch("fields")
    assert code == 0
    for name, field in TrialConfig.model_fields.items():
        assert f"\n{name} " in f"\n{out}"
        assert (field.description or "") in out
    assert "default 0.0001; a number above 0" in out
    assert "default adamw; adamw, adam or sgd" in out
    assert "a whole number from 4 to 1024" in out


def test_one_field_is_explained_with_how_to_set_it(raypatch: Command) -> None:
    code, out, _ = raypatch("fields", "lr")
    assert code == 0
    assert "hyperparameter" in out
    assert "--set lr=" in out
    (field,) = json.loads(raypatch("fields", "lr", "--json")[1])
    assert field["label"] == "learning rate"


def test_a_wrong_field_names_the_near_ones(raypatch: Command) -> None:
    code, _, err = raypatch("fields", "epoch")
    assert code == 2
    assert "unknown field 'epoch'; did you mean epochs" in err


def test_a_study_says_what_it_would_run(raypatch: Command) -> None:
    code, out, _ = raypatch("study", "patch_and_model")
    assert code == 0
    assert "Which patch size, and which model?" in out
    assert "* 14" in out
    assert "vit_tiny_patch16_224" in out
    assert "18 trials" in out


def test_a_study_as_data_takes_what_narrows_it(raypatch: Command) -> None:
    words = ("--dataset", "breast", "--seed", "0-1", "--patch-size", "14,7", "--set", "lr=1e-3,1e-4", "--json")
    found = json.loads(raypatch("study", "grid", *words)[1])
    assert found["datasets"] == ["breastmnist"]
    assert found["seeds"] == [0, 1]
    assert found["settings"] == {"lr": ["0.001", "0.0001"]}
    (factor,) = found["factors"]
    assert [level["name"] for level in factor["levels"]] == ["14", "7"]
    assert factor["baseline"] == "14"
    assert len(found["trials"]) == 8
    assert found["trials"][0]["levels"] == ["14"]


def test_a_study_of_named_levels_shows_what_they_set(raypatch: Command) -> None:
    out = raypatch("study", "model_size", "--set", "model_size=ViT-Ti,ViT-S")[1]
    assert "model=vit_tiny_patch16_224 lr=0.0002" in out
    assert "ViT-B" not in out


def test_a_search_says_what_it_searches(raypatch: Command) -> None:
    out = raypatch("study", "learning_rate", "--dataset", "derma")[1]
    assert "Which learning rate for each patch size?" in out
    assert "16 trials per group" in out
    assert "6 groups" in out


def test_another_factor_is_asked_for(raypatch: Command) -> None:
    words = ("--dataset", "breast", "--patch-size", "4", "--set", "lr=1e-3,1e-4", "--compare", "lr")
    assert "Which learning rate?" in raypatch("study", "grid", *words)[1]


def test_version(raypatch: Command) -> None:
    assert raypatch("--version")[:2] == (0, f"raypatch {package.__version__}\n")


def test_help_names_the_command_that_installs_completion(raypatch: Command) -> None:
    assert "raypatch --install-completion" in raypatch("--help")[1]


def test_names_are_completed() -> None:
    assert options.complete_studies("me") == ["medmnist_plus", "method"]
    assert options.complete_datasets("breastmnist,dermamnist_6") == ["breastmnist,dermamnist_64"]
    assert options.complete_settings("batch") == ["batch_size="]


@pytest.mark.parametrize(("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("0,5-6", ["0", 5, 6]), ("7", ["7"])])
def test_seeds_are_numbers_or_ranges(text: str, seeds: list[object]) -> None:
    assert options.read_seeds(text) == seeds


def test_every_shipped_study_is_described(raypatch: Command, tmp_path: Path) -> None:
    for name in shipped_studies():
        # Studies of masks ask for data that have some.
        dataset = "phantom2d" if name.startswith("segmentation") else "breast"
        code, out, _ = raypatch("study", name, "--dataset", dataset)
        assert code == 0
        assert out.startswith(f"{name}: Which")
