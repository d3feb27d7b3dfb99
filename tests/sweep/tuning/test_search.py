"""A search: right number, no trial twice, the same draws again, pruned stays pruned, however a session ended."""

import math
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import (
    SweepPaths,
    TrialPaths,
    TrialResult,
    read_config,
    read_epochs,
    read_result,
    read_sweep,
)
from raypatch.search_settings import Search, SearchSettings
from raypatch.study import Study
from raypatch.study.budget import describe_budget, fit_budget
from raypatch.study.resolve import resolve_search
from raypatch.sweep.run import resume_sweep, run_sweep
from raypatch.sweep.session import ExecutorOptions, Session
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.tuning.group import SearchGroup
from raypatch.sweep.tuning.recipes import load_recipes, summarize_search
from raypatch.sweep.tuning.restore import restore_search

from processes import PATIENCE, epochs_on_disk, start, stopped_after, wait_for
from tiny import epoch_row, make_images, tiny_study

LOCAL = ExecutorOptions(executor="local")
OPTIONS = RunOptions(device="cpu", threads=1)
LR = {"lr": {"loguniform": [1e-6, 1e-1]}}


def _space(data: Path, *, epochs: int = 4, **search: object) -> Study:
    settings = {"fields": LR, "samples": 4, "grace_epochs": 1} | search
    return tiny_study(data, fixed={"epochs": epochs}, search=settings)


def _session(folder: Path, *, retry_failed: bool = False) -> Session:
    paths = SweepPaths(folder)
    return Session(paths, OPTIONS, LOCAL, StopRequest(paths.stop), retry_failed=retry_failed)


def _drawn(folder: Path) -> list[tuple[int, float]]:
    return [(config.patch_size, config.lr) for config in read_sweep(SweepPaths(folder).record).trials]


def _status(trial: TrialPaths) -> str:
    result = read_result(trial.result)
    return result.status if result else "unfinished"


def _statuses(folder: Path) -> Counter[str]:
    return Counter(map(_status, SweepPaths(folder).trial_folders()))


def _check_whole(folder: Path, *, samples: int) -> None:
    """Each group has exactly its samples, each trial once, and no pruned one ran on."""
    trials = read_sweep(SweepPaths(folder).record).trials
    assert Counter(config.patch_size for config in trials) == {8: samples, 4: samples}
    names = [config.trial_id() for config in trials]
    assert sorted(names) == sorted({trial.folder.name for trial in SweepPaths(folder).trial_folders()})
    for trial in SweepPaths(folder).trial_folders():
        result, rows = read_result(trial.result), read_epochs(trial.epochs)
        assert result is not None
        assert [row.epoch for row in rows] == list(range(1, result.epochs + 1))
        if result.status == "pruned":
            assert result.epochs < read_config(trial.config).epochs
            assert result.test is None
            assert not trial.predictions.exists()
            assert not trial.checkpoint.exists()
    assert not list(folder.rglob("*.tmp"))


def _study(*, label: str = "derma-p4", seed: int = 0, epochs: int = 9, **settings: object) -> SearchGroup:
    search = SearchSettings.model_validate({"fields": LR, "grace_epochs": 1} | settings)
    base = TrialConfig(dataset="derma", patch_size=4, epochs=epochs, seed=seed)
    return SearchGroup(base, label, search, None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images.npz")


@pytest.fixture(scope="module")
def searched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search; read only."""
    folder = tmp_path_factory.mktemp("runs") / "searched"
    assert run_sweep(_space(data), folder, OPTIONS, LOCAL).left == 0
    return folder


def test_search_is_whole_and_spends_less(searched: Path) -> None:
    _check_whole(searched, samples=4)
    assert _statuses(searched)["pruned"] >= 2
    assert (searched / "best.yaml").exists()


def test_the_same_search_elsewhere_draws_the_same(searched: Path, data: Path, tmp_path: Path) -> None:
    run_sweep(_space(data), tmp_path / "again", OPTIONS, LOCAL)
    assert _drawn(tmp_path / "again") == _drawn(searched)
    assert _statuses(tmp_path / "again") == _statuses(searched)


def test_stopped_search_goes_on_to_the_same_end(searched: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    space = _space(data)
    for epochs in (1, 5, 3):
        with stopped_after(epochs):
            assert run_sweep(space, folder, OPTIONS, LOCAL).left
    assert run_sweep(space, folder, OPTIONS, LOCAL).left == 0
    assert _drawn(folder) == _drawn(searched)
    _check_whole(folder, samples=4)
    assert _statuses(folder) == _statuses(searched)


def test_more_samples_go_on_from_those_there_are(searched: Path, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(searched, tmp_path / "copy")
    before = {trial.folder.name: trial.result.read_bytes() for trial in SweepPaths(folder).trial_folders()}
    assert run_sweep(_space(data, samples=5), folder, OPTIONS, LOCAL).ok == 10
    _check_whole(folder, samples=5)
    assert {name: SweepPaths(folder).trial(name).result.read_bytes() for name in before} == before


def test_trial_whose_last_epoch_was_its_end_is_pruned_on_resume_without_running(searched: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(searched, tmp_path / "copy")
    paths = SweepPaths(folder)
    lost = [trial for trial in paths.trial_folders() if _status(trial) == "pruned"]
    rows = {trial.folder.name: trial.epochs.read_bytes() for trial in lost}
    for trial in lost:  # as if the session had died between the last report and the judgement
        trial.result.unlink()
    record = read_sweep(paths.record)
    _, unfinished = restore_search(record, _session(folder))
    assert unfinished == []
    assert {trial.folder.name: trial.epochs.read_bytes() for trial in lost} == rows
    assert {_status(trial) for trial in lost} == {"pruned"}


def test_trials_are_found_again_without_sweep_json(searched: Path, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(searched, tmp_path / "copy")
    SweepPaths(folder).record.unlink()
    SweepPaths(folder).studies.write_bytes(b"not a journal")
    assert run_sweep(_space(data), folder, OPTIONS, LOCAL).ok == 8
    assert sorted(_drawn(folder)) == sorted(_drawn(searched))


def test_optuna_reads_the_studies(searched: Path) -> None:
    import optuna

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(SweepPaths(searched).studies))
    )
    assert sorted(optuna.get_all_study_names(storage)) == ["images-p4", "images-p8"]
    study = optuna.load_study(study_name="images-p4", storage=storage)
    states = Counter(trial.state.name for trial in study.trials)
    assert states["COMPLETE"] + states["PRUNED"] == 4
    assert {trial.user_attrs["trial_id"] for trial in study.trials} <= {
        trial.folder.name for trial in SweepPaths(searched).trial_folders()
    }


def test_resume_needs_the_folder_alone(searched: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(searched, tmp_path / "copy")
    victim = SweepPaths(folder).trial_folders()[0]
    shutil.rmtree(victim.folder)
    assert resume_sweep(folder, {}).ok == 8
    assert sorted(_drawn(folder)) == sorted(_drawn(searched))


def test_report_has_the_search_trials_in_order_with_the_best_so_far(searched: Path) -> None:
    from raypatch.analysis.answer.search import search_trials
    from raypatch.analysis.frames.load import load_study
    from raypatch.analysis.show.plots.search import search_plots

    study = load_study(searched)
    trials = search_trials(study)
    assert Counter(trials["group"]) == {"images-p4": 4, "images-p8": 4}
    for _, group in trials.groupby("group"):
        assert list(group["number"]) == [1, 2, 3, 4]
        finished = group[group["status"] == "ok"]
        assert group["best"].iloc[-1] == finished["score"].min() == finished["val_loss"].min()
    scores, history = search_plots(study)
    assert set(scores.panels) == set(history.panels) == {"images-p4", "images-p8"}
    assert sorted(scores.data["value"]) == sorted(lr for _, lr in _drawn(searched))
    assert set(scores.data["status"]) == {"ok", "pruned"}


def test_importance_finds_the_field_that_matters() -> None:
    import pandas as pd

    from raypatch.analysis.answer.search import field_importance

    fields = LR | {"weight_decay": {"uniform": [0, 1]}}
    settings = SearchSettings.model_validate({"fields": fields, "samples": 64})
    search = Search(settings=settings, groups=(TrialConfig(dataset="derma", patch_size=4),))
    rows = []
    for number in range(64):
        drawn = {"lr": 10 ** (-6 + number / 13), "weight_decay": number * 37 % 64 / 64}
        rows.append({"drawn": drawn, "score": abs(math.log10(drawn["lr"]) + 4)})
    trials = pd.DataFrame(rows)
    shares = field_importance(trials, search)
    assert list(shares) == ["lr", "weight_decay"]
    assert shares["lr"] > 0.8
    assert field_importance(trials[:5], search) == {}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_draws_differ_between_groups_and_seeds_and_repeat(sampler: str) -> None:
    def draw(**which: object) -> list[float]:
        study = _study(sampler=sampler, **which)
        return [study.draw().lr for _ in range(3)]

    assert draw() == draw()
    assert not set(draw()) & set(draw(label="derma-p7"))
    assert not set(draw()) & set(draw(seed=1))


def test_few_choices_are_all_drawn_once() -> None:
    fields = {"schedule": {"choice": ["step", "cosine", "constant"]}, "warmup_epochs": {"int": [0, 3]}}
    study = _study(fields=fields, samples=12)
    drawn = [study.draw() for _ in range(12)]
    assert len({config.trial_id() for config in drawn}) == 12
    assert study.undrawn == 0


def _run(study: SearchGroup, losses: list[float]) -> int:
    """Train with these losses an epoch; the epochs run."""
    config = study.draw()
    for epoch, loss in enumerate(losses, start=1):
        if study.report(config.trial_id(), epoch_row(epoch, loss)):
            study.tell(TrialResult(trial_id=config.trial_id(), status="pruned", epochs=epoch))
            return epoch
    scores = {"loss": min(losses), "accuracy": 0.5, "balanced_accuracy": 0.5, "auc": 0.5}
    study.tell(TrialResult(trial_id=config.trial_id(), status="ok", val=scores))
    return len(losses)


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median", "none"])
def test_pruners_give_up_the_worst_only(pruner: str) -> None:
    study = _study(pruner=pruner, samples=30, reduction=3)
    for number in range(8):
        assert _run(study, [0.9 - 0.01 * number] * 9) == 9  # each better than all before
    ran = [_run(study, [5.0] * 9) for _ in range(8)]
    assert (min(ran) < 9) == (pruner != "none")


@pytest.mark.parametrize(("samples", "budget"), [(16, 0.4), (16, 0.25), (3, 0.4)])
def test_budget_holds_though_every_trial_is_the_best_so_far(samples: int, budget: float) -> None:
    study = _study(samples=samples, budget=budget, epochs=27, reduction=3)
    ran = [_run(study, [0.9 - 0.01 * number] * 27) for number in range(samples)]
    assert sum(ran) <= budget * samples * 27
    assert set(ran) <= {1, 3, 9, 27}  # stopped at rungs, where the score says something
    assert 27 in ran


@pytest.mark.parametrize(("samples", "epochs"), [(8, 5), (16, 5), (16, 20), (4, 4)])
def test_the_best_trial_runs_through_whenever_it_comes(samples: int, epochs: int) -> None:
    given = SearchSettings.model_validate({"fields": LR, "samples": samples, "sampler": "random"})
    budget = fit_budget(given, [epochs]).budget
    orders = 20
    found = 0
    for seed in range(orders):
        group = _study(samples=samples, epochs=epochs, seed=seed, budget=budget, grace_epochs=2, sampler="random")
        losses = random.Random(seed).sample(range(samples), samples)
        ran = [_run(group, [float(loss)] * epochs) for loss in losses]
        assert sum(ran) <= budget * samples * epochs
        found += group.best is not None and group.best[1] == 0
    assert found >= 0.9 * orders  # of 20, the budget of 0.4 found 4 with 8 samples of 5 epochs


def test_budget_is_raised_only_where_it_does_not_suffice() -> None:
    settings = SearchSettings.model_validate({"fields": LR})
    assert fit_budget(settings, [100]) == settings
    assert fit_budget(settings, [100, 5]).budget == pytest.approx(0.63)  # (16 x 2 + 6 x 3) / (16 x 5)
    none = settings.model_copy(update={"pruner": "none"})
    assert fit_budget(none, [5]) == none


def test_a_search_says_before_it_starts_how_it_judges(data: Path) -> None:
    search = resolve_search(_space(data, epochs=5, samples=8, grace_epochs=2)).search
    text = describe_budget(search)
    assert "8 samples per group, of at most 5 epochs, judged after 2; 28 of 40 epochs in all (budget 0.7)" in text
    assert "as few as it takes" in text
    assert "as few" not in describe_budget(resolve_search(_space(data, epochs=5, samples=8, budget=1)).search)
    assert "none of them stopped early" in describe_budget(resolve_search(_space(data, pruner="none")).search)


def test_budget_counts_what_running_trials_may_still_take() -> None:
    study = _study(samples=4, budget=0.4, epochs=10, reduction=2)  # 16 of 40 epochs
    first, second = study.draw(), study.draw()
    assert not study.report(first.trial_id(), epoch_row(1, 0.5))  # 2 + 1, and 2 undrawn
    passed = [rung for rung in (2, 4, 8) if not study.report(first.trial_id(), epoch_row(rung, 0.5))]
    assert passed == [2, 4, 8]  # 10 + 1 + 2
    assert not study.report(second.trial_id(), epoch_row(1, 0.4))  # 10 + 2 + 2
    assert not study.report(second.trial_id(), epoch_row(2, 0.4))  # 10 + 4 + 2
    assert study.report(second.trial_id(), epoch_row(4, 0.4))  # 10 + 8 + 2 would be more than 16


def test_one_trial_runs_through_whatever_the_budget() -> None:
    study = _study(samples=2, budget=0.01)
    assert [_run(study, [0.5] * 9), _run(study, [0.1] * 9)] == [9, 1]


def test_groups_never_judge_each_other() -> None:
    good, bad = _study(), _study(label="derma-p7")
    assert _run(good, [0.1] * 9) == 9
    assert _run(bad, [5.0] * 9) == 9


def test_repeated_epochs_after_a_crash_are_not_judged_again() -> None:
    study = _study()
    _run(study, [0.1] * 9)
    config = study.draw()
    assert not study.report(config.trial_id(), epoch_row(1, 0.05))
    assert not study.report(config.trial_id(), epoch_row(1, 9.0))
    assert not study.report(config.trial_id(), epoch_row(2, 9.0))  # no rung at 2


def test_last_epoch_is_never_given_up_and_undefined_scores_are_no_best() -> None:
    study = _study(epochs=3, samples=4, budget=1)
    _run(study, [0.1] * 3)
    assert _run(study, [0.05, 0.05, 9.0]) == 3
    assert _run(study, [float("nan")] * 3) == 1


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"fields": {"lrr": {"uniform": [0, 1]}}}, "unknown field 'lrr'; did you mean lr"),
        ({"fields": {"lr": {"loguniform": [0, 1]}}}, "loguniform needs numbers above 0"),
        ({"fields": {"lr": {"uniform": [1, 1]}}}, "range from 1.0 to 1.0 is empty"),
        ({"fields": {"lr": {"uniform": [0, 1], "choice": [1, 2]}}}, "exactly one of"),
        ({"fields": {"lr": {"uniform": [0, 1]}}}, "lr: Input should be greater than 0"),
        ({"fields": {"patch_size": {"choice": [4, 5]}}, "samples": 2}, "patch_size=5 must divide image_size=8"),
        ({"fields": {"epochs": {"int": [1, 5]}}}, "epochs cannot be searched"),
        ({"fields": {"seed": {"int": [0, 50]}}}, "a lucky seed is no better recipe"),
        ({"fields": {"batch_size": {"choice": [8, 16]}}, "samples": 3}, "3 samples of only 2 different trials"),
        ({"samples": 0}, "greater than or equal to 1"),
        ({"grace_epochs": 5}, "grace_epochs=5 must be at most epochs=4"),
        ({"pruner": "magic"}, "Input should be 'asha'"),
    ],
)
def test_wrong_searches_are_refused(data: Path, search: dict[str, object], message: str) -> None:
    def resolve() -> None:
        space = _space(data)
        grid = dict(space.grid)
        if "patch_size" in str(search):
            del grid["patch_size"]
        settings = {"fields": LR, "samples": 4, "grace_epochs": 1} | search
        resolve_search(Study.model_validate(space.model_dump() | {"grid": grid, "search": settings}))

    with pytest.raises(ValueError, match=message):
        resolve()


def test_levels_of_a_factor_can_be_searched_together(data: Path) -> None:
    search = resolve_search(_space(data).search_together()).search
    assert search.labels == ("images",)
    group = SearchGroup(search.groups[0], "images", search.settings, None)
    assert {group.draw().patch_size for _ in range(8)} == {4, 8}


BACKBONES = {
    "small": {"model": "test_vit", "lr": 1e-3},
    "other": {"model": "test_vit2", "lr": 1e-4},
}


def _together(data: Path, **axes: object) -> Study:
    """A search over weight decay and the levels of the one factor among `axes`."""
    settings = {"fields": {"weight_decay": {"uniform": [0, 0.1]}}, "samples": 6, "grace_epochs": 1}
    content = tiny_study(data, fixed={"epochs": 2}, search=settings, patch_size=[4], **axes).model_dump(
        exclude_none=True
    )
    content["compare"] = list(axes)
    if "backbone" in axes:
        for field in ("model", "lr"):
            content["fixed"].pop(field)
    return Study.model_validate(content).search_together()


@pytest.mark.parametrize("axes", [{"backbone": BACKBONES}, {"method": ["finetune", "linear_probe"]}])
def test_any_factor_is_searched_together(data: Path, tmp_path: Path, axes: dict[str, object]) -> None:
    (name,) = axes
    study, folder = _together(data, **axes), tmp_path / "run"
    with stopped_after(epochs=3):
        assert run_sweep(study, folder, OPTIONS, LOCAL).left
    before = [config.trial_id() for config in read_sweep(SweepPaths(folder).record).trials]
    assert run_sweep(study, folder, OPTIONS, LOCAL).left == 0
    record = read_sweep(SweepPaths(folder).record)
    assert [config.trial_id() for config in record.trials][: len(before)] == before
    assert record.search is not None
    assert record.search.labels == ("images",)
    (factor,) = record.factors
    assert factor.name == name
    assert {levels for (levels,) in record.levels.values()} == set(factor.names)
    for config in record.trials:
        assert record.search.group_of(config) == 0
        assert record.search.drawn_values(config)[name] in factor.names
        if name == "backbone":  # the learning rate comes with its model
            assert config.lr == BACKBONES[record.levels[config.trial_id()][0]]["lr"]
    drawn_with = {str(record.search.drawn_values(config)[name]) for config in record.search.extremes}
    assert drawn_with == set(factor.names)
    (rule,) = load_recipes(SweepPaths(folder).recipes)
    (group,) = summarize_search(record, SweepPaths(folder))
    assert group.best is not None
    assert rule.holds(group.best.model_dump())
    assert set(rule.values) == {"weight_decay"}
    assert factor.fields <= set(rule.condition)


def test_groups_are_named_by_their_levels(data: Path) -> None:
    settings = {"fields": {"weight_decay": {"uniform": [0, 0.1]}}, "samples": 2, "grace_epochs": 1}
    content = tiny_study(data, search=settings, patch_size=[4], backbone=BACKBONES).model_dump(exclude_none=True)
    content["fixed"] = {"weights": "random", "epochs": 2}
    search = resolve_search(Study.model_validate(content | {"compare": ["backbone"]}))
    assert search.search.labels == ("images-small", "images-other")


def test_importance_of_a_searched_factor() -> None:
    import pandas as pd

    from raypatch.analysis.answer.search import field_importance

    fields = LR | {"backbone": {"levels": {name: {"model": name} for name in ("a", "b")}}}
    settings = SearchSettings.model_validate({"fields": fields, "samples": 64})
    search = Search(settings=settings, groups=(TrialConfig(dataset="derma", model="a", patch_size=4),))
    rows = []
    for number in range(64):
        drawn = {"lr": 10 ** (-6 + number / 13), "backbone": "ab"[number % 2]}
        rows.append({"drawn": drawn, "score": number * 37 % 64 / 64 + (drawn["backbone"] == "a")})
    trials = pd.DataFrame(rows)
    shares = field_importance(trials, search)
    assert next(iter(shares)) == "backbone"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_killed_search_ends_whole(data: Path, tmp_path: Path) -> None:
    study, paths = tmp_path / "study.yaml", SweepPaths(tmp_path / "runs" / "run")
    content = _space(data, epochs=30, budget=1).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    study.write_text(yaml.safe_dump(content))
    words = ["tune", "--space", study, "--name", "run", "--device", "cpu", "--cpus-per-trial", "1"]
    order: list[str] = []
    for epochs_more in (3, 9, 15):  # kill at the first moment when so many more epochs stand on disk
        before = epochs_on_disk(paths)
        driver = start(words, tmp_path)
        wait_for(lambda goal=before + epochs_more: epochs_on_disk(paths) >= goal, driver, every=0.05)
        driver.kill()
        driver.wait()
        names = [config.trial_id() for config in read_sweep(paths.record).trials]
        assert names[: len(order)] == order
        order = names
    assert start(words, tmp_path).wait(PATIENCE) == 0
    _check_whole(paths.folder, samples=4)
    assert [config.trial_id() for config in read_sweep(paths.record).trials][: len(order)] == order
