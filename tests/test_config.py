"""A trial's identity: what enters it, what does not, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from raypatch.config import RunOptions, TrialConfig, explain_validation
from raypatch.storage.own_files import own_file_id


def test_same_trial_has_the_same_id_however_it_is_spelled() -> None:
    plain = TrialConfig(dataset="dermamnist", patch_size=4)
    spelled = TrialConfig.model_validate({"patch_size": "4", "dataset": "DermaMNIST", "lr": "1e-4", "seed": 0})
    assert plain.trial_id() == spelled.trial_id() == "dermamnist-p4-s0-131001ff"


def test_defaults_do_not_enter_the_identity() -> None:
    config = TrialConfig(dataset="derma", patch_size=4, epochs=100)
    assert config.canonical_json() == '{"dataset":"dermamnist","patch_size":4}'


@pytest.mark.parametrize("change", [{"seed": 1}, {"lr": 2e-4}, {"patch_size": 7}, {"weights": "random"}, {"epochs": 9}])
def test_every_change_gives_another_id(change: dict[str, object]) -> None:
    base = {"dataset": "derma", "patch_size": 4}
    assert TrialConfig.model_validate(base | change).trial_id() != TrialConfig.model_validate(base).trial_id()


def test_configs_are_frozen() -> None:
    config = TrialConfig(dataset="derma", patch_size=4)
    with pytest.raises(ValidationError):
        config.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 5}, "patch_size=5 must divide image_size=28; use one of 1, 2, 4, 7, 14, 28"),
        ({"lerning_rate": 1}, "lerning_rate: unknown field"),
        ({"epoch": 1}, "epoch: unknown field; did you mean epochs"),
        ({"lr": 0}, "lr: Input should be greater than 0, not 0"),
        ({"lr": float("nan")}, "lr: "),
        ({"dataset": "dermo"}, "did you mean dermamnist"),
        ({"weights": "../../etc"}, "must be timm, random or the path"),
        ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs=2 must be below epochs=2"),
        ({"optimizer": "lion"}, "optimizer: "),
        ({"selection": "test_auc"}, "selection: "),
    ],
)
def test_bad_values_are_explained(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrialConfig.model_validate({"dataset": "derma", "patch_size": 4} | change)
    assert message in explain_validation(caught.value, TrialConfig)


def test_every_field_says_what_it_is() -> None:
    for model in (TrialConfig, RunOptions):
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), name


def test_own_file_is_known_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "my data.npz", tmp_path / "other" / "my data.npz"
    second.parent.mkdir()
    for path in (first, second):
        path.write_bytes(b"content")
    assert own_file_id(first) == own_file_id(second)
    assert own_file_id(first).startswith("file:my_data@")
    TrialConfig(dataset=own_file_id(first), patch_size=4)
    second.write_bytes(b"changed")
    assert own_file_id(first) != own_file_id(second)


def test_missing_own_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*absent.npz"):
        own_file_id(tmp_path / "absent.npz")
