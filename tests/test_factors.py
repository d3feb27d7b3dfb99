"""Factors: levels in order, baseline, wording, and what a user may call a level."""

import pytest

from raypatch.config import TrialConfig, field_facts
from raypatch.factors import ask_search, ask_which, factor_of_axis, factor_of_field, widen, word_value

OWN = ("file:a@0123456789ab", "file:a@ba9876543210")


def _config(**fields: object) -> TrialConfig:
    return TrialConfig.model_validate({"dataset": "derma", "patch_size": 4} | fields)


@pytest.mark.parametrize(
    ("field", "values", "names"),
    [
        ("patch_size", [4, 14, 7], ("14", "7", "4")),
        ("image_size", [64, 28, 128], ("28", "64", "128")),
        ("train_fraction", [1.0, 0.1], ("10 %", "100 %")),
        ("lr", [1e-5, 1e-3], ("0.001", "1e-05")),
        ("method", ["linear_probe", "finetune"], ("linear_probe", "finetune")),
        ("patch_size", [4, None], ("none", "4")),
        ("weights", OWN, OWN),
        ("weights", [OWN[0], "random"], ("a", "random")),
    ],
)
def test_levels_come_in_the_natural_order_of_their_field(
    field: str, values: list[object], names: tuple[str, ...]
) -> None:
    factor = factor_of_field(field, values)
    assert factor.names == names
    assert factor.baseline == names[0]


def test_named_levels_keep_the_order_of_the_study() -> None:
    factor = factor_of_axis("backbone", {"ViT": {"model": "test_vit"}, "small": {"model": "test_vit2"}})
    assert factor.names == ("ViT", "small")
    assert not factor.ordered
    assert factor.label == "backbone"
    assert factor.fields == {"model"}


def test_of_levels_that_fit_the_one_that_sets_most_counts() -> None:
    factor = factor_of_axis("size", {"plain": {"model": "test_vit"}, "hot": {"model": "test_vit", "lr": 0.1}})
    assert factor.level_of(_config(model="test_vit", lr=0.1)) == "hot"
    assert factor.level_of(_config(model="test_vit")) == "plain"
    assert factor.level_of(_config()) is None


@pytest.mark.parametrize("text", ["4", " 4 ", "Patch size 4"])
def test_a_level_is_known_by_its_name_or_its_phrase(text: str) -> None:
    assert factor_of_field("patch_size", [14, 4]).parse(text) == "4"


def test_an_unknown_level_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'5' is no patch size of this study; it has 14, 4"):
        factor_of_field("patch_size", [14, 4]).parse("5")


def test_phrases_and_headings() -> None:
    patch, size = factor_of_field("patch_size", [4]), factor_of_field("image_size", [28])
    share = factor_of_field("train_fraction", [0.1])
    assert (patch.phrase("4"), patch.heading) == ("patch size 4", "Patch size")
    assert (size.phrase("28"), size.heading) == ("28 px", "Image size (px)")
    assert share.phrase("10 %") == "10 % of the training images"
    assert word_value("weights", OWN[0]) == "a"


def test_every_field_of_a_trial_has_words() -> None:
    for name in TrialConfig.model_fields:
        facts = field_facts(name)
        assert facts.label
        assert "{}" in facts.phrase


def test_earlier_trials_widen_a_factor_and_named_baselines_stay() -> None:
    factor = factor_of_field("patch_size", [14, 7])
    wider = widen(factor, [_config(patch_size=28), _config(patch_size=7)])
    assert (wider.names, wider.baseline) == (("28", "14", "7"), "28")
    chosen = factor_of_field("patch_size", [14, 7], baseline=7)
    assert widen(chosen, [_config(patch_size=28)]).baseline == "7"
    named = factor_of_axis("size", {"a": {"lr": 0.1}, "b": {"lr": 0.2}})
    assert widen(named, [_config(lr=0.3)]) is named


def test_questions() -> None:
    assert ask_which(["patch size"]) == "Which patch size?"
    assert ask_which(["patch size", "model"]) == "Which patch size, and which model?"
    assert ask_search(["lr", "batch_size"], ["patch_size"]) == "Which learning rate and batch size for each patch size?"
    assert ask_search(["lr", "patch_size"], ["patch_size"]) == "Which learning rate and patch size?"
