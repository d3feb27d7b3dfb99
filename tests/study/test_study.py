"""Search spaces: precedence, narrowing, shipped files, and clear refusals."""

from pathlib import Path

import pytest

from raypatch.study import Study, check_name, load_study, parse_setting, shipped_studies
from raypatch.study.published import read_rows
from raypatch.study.resolve import resolve_trials

from tiny import make_images


def _space(**content: object) -> Study:
    return Study.model_validate({"name": "test", **content})


def test_the_grid_is_the_study() -> None:
    resolved = resolve_trials(load_study("grid"))
    trials, files = resolved.trials, resolved.files
    assert len(trials) == len({config.trial_id() for config in trials}) == 216
    assert len({config.dataset for config in trials}) == 12
    assert {config.patch_size for config in trials} == {1, 2, 4, 7, 14, 28}
    assert {config.seed for config in trials} == {0, 1, 2}
    assert not files
    flat = next(config for config in trials if config.dataset == "breastmnist")
    deep = next(config for config in trials if config.dataset == "vesselmnist3d")
    assert (flat.lr, flat.epochs) == (1e-4, 100)
    assert (deep.lr, deep.epochs) == (1e-5, 20)


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_every_shipped_space_loads_and_opens_with_its_command(name: str) -> None:
    space = load_study(name)
    assert space.name == name
    assert space.description
    text = shipped_studies()[name].read_text("utf-8")
    assert text.startswith("#")
    assert f"raypatch run {name}" in text or "raypatch tune" in text
    assert "Cost:" in text
    assert "To expect" in text


@pytest.mark.parametrize(
    ("name", "trials", "levels"),
    [("segmentation", 10, ["ResNet-50", "DeiT-S/16"]), ("segmentation_by_patch", 9, ["16", "8", "4"])],
)
def test_studies_of_masks_take_any_data_that_have_some(name: str, trials: int, levels: list[str]) -> None:
    resolved = resolve_trials(load_study(name).override({"dataset": ["phantom2d"]}))
    assert len(resolved.trials) == trials
    assert list(resolved.factors[0].names) == levels
    assert {config.selection for config in resolved.trials} == {"val_dice"}
    with pytest.raises(ValueError, match="breastmnist has no masks"):
        resolve_trials(load_study(name).override({"dataset": ["breastmnist"]}))


@pytest.mark.parametrize(
    ("name", "trials", "levels"),
    [
        ("medmnist_plus", 4320, {"backbone": 10, "method": 3, "resolution": 4}),
        ("foundation", 1080, {"backbone": 15, "method": 2}),
        ("learning_rate_by_family", 180, {"encoder_lr": 5, "backbone": 4}),
        ("image_size", 72, {"resolution": 4, "backbone": 3, "method": 2}),
        ("padding", 162, {"resize": 3, "resolution": 3, "backbone": 3, "method": 2}),
        ("data_fraction", 30, {"train_fraction": 5}),
        ("initialisation", 220, {"start": 3}),
        ("capacity", 150, {"backbone": 6}),
        ("token_size", 100, {"tokens": 4}),
        ("initialisation_by_patch", 224, {"start": 3, "patch_size": 4}),
    ],
)
def test_the_studies_of_the_papers_are_whole(name: str, trials: int, levels: dict[str, int]) -> None:
    resolved = resolve_trials(load_study(name))
    assert len({config.trial_id() for config in resolved.trials}) == len(resolved.trials) == trials
    assert {factor.name: len(factor.levels) for factor in resolved.factors} == levels


def test_the_published_table_names_levels_and_datasets_of_its_study() -> None:
    study = load_study("medmnist_plus")
    rows = read_rows(study.expect[0].table)
    assert len(rows) == 1440
    for name in ("dataset", "backbone", "method", "resolution"):
        assert {row[name] for row in rows} == set(map(str, study.grid[name]))


def test_axis_beats_rule_beats_fixed_beats_default() -> None:
    space = _space(
        fixed={"dataset": "derma", "patch_size": 4, "lr": 0.5, "epochs": 3},
        when=[{"if": {"dimensions": 2}, "set": {"lr": 0.25, "batch_size": 16}}],
        grid={"batch_size": [2]},
    )
    (config,) = resolve_trials(space).trials
    assert (config.epochs, config.lr, config.batch_size, config.weight_decay) == (3, 0.25, 2, 0.05)


def test_override_replaces_what_any_part_of_the_file_says() -> None:
    space = load_study("grid").override({"dataset": ["breast", "adrenal"], "lr": ["3e-4"], "seed": [0]})
    trials = resolve_trials(space).trials
    assert len(trials) == 2 * 6
    assert {config.lr for config in trials} == {3e-4}
    assert {config.epochs for config in trials} == {100, 20}


def test_rules_may_ask_for_lists_and_for_facts() -> None:
    space = _space(
        grid={"dataset": ["retina", "breast"], "patch_size": [28, 4]},
        when=[{"if": {"task": ["ordinal", "multilabel"], "patch_size": [1, 4]}, "set": {"epochs": 1}}],
    )
    trials = resolve_trials(space).trials
    assert [config.epochs for config in trials] == [100, 1, 100, 100]


def test_rules_may_leave_trials_out() -> None:
    rule = {"if": {"dimensions": 3, "patch_size": 1}, "skip": True}
    space = _space(grid={"dataset": ["adrenal", "breast"], "patch_size": [1, 4]}, when=[rule])
    trials = resolve_trials(space).trials
    assert [(config.dataset, config.patch_size) for config in trials] == [
        ("adrenalmnist3d", 4),
        ("breastmnist", 1),
        ("breastmnist", 4),
    ]
    with pytest.raises(ValueError, match="skips all of these trials"):
        resolve_trials(space.override({"dataset": ["adrenal"], "patch_size": [1]}))


def test_same_trial_named_twice_is_one() -> None:
    trials = resolve_trials(_space(grid={"dataset": ["derma", "dermamnist"], "patch_size": [4]})).trials
    assert len(trials) == 1


def test_image_size_follows_the_dataset_unless_given() -> None:
    trials = resolve_trials(_space(grid={"dataset": ["derma_64", "derma"], "patch_size": [4]})).trials
    assert [config.image_size for config in trials] == [64, 28]
    trials = resolve_trials(_space(fixed={"image_size": 32}, grid={"dataset": ["derma_64"], "patch_size": [4]})).trials
    assert trials[0].image_size == 32


def test_settings_are_typed_and_lists_become_axes() -> None:
    assert parse_setting("epochs=5") == ("epochs", [5])
    assert parse_setting("seed=[0,1]") == ("seed", [0, 1])
    assert parse_setting("optimizer=adam,sgd") == ("optimizer", ["adam", "sgd"])
    (config,) = resolve_trials(_space(fixed={"dataset": "derma", "patch_size": 4}).override({"lr": ["1e-4"]})).trials
    assert config.lr == 1e-4


@pytest.mark.parametrize("text", ["epochs", "=5", "epochs=", ""])
def test_malformed_settings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be field=value"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\nfixd: {}\n", "fixd: unknown field; did you mean fixed"),
        ("name: x\nfixed: {learning_rate: 1}\n", "unknown field 'learning_rate'"),
        ("name: x\ngrid: {epoch: [1]}\n", "unknown field 'epoch'; did you mean epochs"),
        ("name: x\ngrid: {seed: []}\n", "grid axis 'seed' is empty"),
        ("name: x\nfixed: {seed: 1}\ngrid: {seed: [0]}\n", "seed: both fixed and a grid axis"),
        ("name: ../x\n", "must be letters"),
        ("name: x\nwhen: [{if: {dimension: 2}, set: {lr: 1}}]\n", "did you mean dimensions"),
        ("- a list\n", "must hold a mapping"),
        ("name: [x\n", "not valid YAML"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"space\.yaml") as caught:
        load_study(str(path))
    assert message in str(caught.value)


def test_unknown_space_names_the_near_ones() -> None:
    with pytest.raises(ValueError, match="unknown search space 'gird': use grid"):
        load_study("gird")
    with pytest.raises(ValueError, match="cannot read the search space"):
        load_study("absent.yaml")


def test_wrong_combinations_are_refused() -> None:
    base = {"dataset": "derma", "patch_size": 4}
    with pytest.raises(ValueError, match="inflation=centre is for volumes"):
        resolve_trials(_space(fixed=base | {"inflation": "centre"}))
    with pytest.raises(ValueError, match="resize=pad needs image_size of at least 28"):
        resolve_trials(_space(fixed=base | {"image_size": 24, "resize": "pad"}))
    with pytest.raises(ValueError, match="names no dataset"):
        resolve_trials(_space(fixed={"patch_size": 4}))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a" * 65, "a b", "x\n"])
def test_names_with_path_characters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be letters"):
        check_name(name)


def test_rules_know_datasets_by_any_name_and_own_files_by_path(tmp_path: Path) -> None:
    own = make_images(tmp_path / "own.npz")
    rules = [{"if": {"dataset": "DermaMNIST"}, "set": {"lr": 0.5}}, {"if": {"dataset": str(own)}, "set": {"lr": 0.25}}]
    space = _space(fixed={"patch_size": 4}, grid={"dataset": ["derma", str(own), "breast"]}, when=rules)
    resolved = resolve_trials(space)
    trials, files = resolved.trials, resolved.files
    assert [config.lr for config in trials] == [0.5, 0.25, 1e-4]
    assert list(files.values()) == [own]


@pytest.mark.parametrize(
    ("condition", "message"),
    [({"dataset": "dermo"}, "unknown dataset"), ({"task": "multi-label"}, "task is one of .*multilabel")],
)
def test_a_rule_that_could_never_hold_is_refused(condition: dict[str, str], message: str) -> None:
    space = _space(fixed={"dataset": "derma", "patch_size": 4}, when=[{"if": condition, "set": {"lr": 0.5}}])
    with pytest.raises(ValueError, match=message):
        resolve_trials(space)


def test_rules_may_leave_out_what_would_not_fit() -> None:
    rule = {"if": {"image_size": 64, "patch_size": 7}, "skip": True}
    space = _space(fixed={"dataset": "derma"}, grid={"image_size": [28, 64], "patch_size": [7, 4]}, when=[rule])
    trials = resolve_trials(space).trials
    assert [(config.image_size, config.patch_size) for config in trials] == [(28, 7), (28, 4), (64, 4)]
