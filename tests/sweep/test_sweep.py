"""A sweep: the same command continues, both executors agree, and nothing is run twice or left behind."""

import errno
import io
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import typer

import raypatch.sweep.executors.local
from raypatch.api import tell
from raypatch.cli.commands.sweeps import finish
from raypatch.config import RunOptions, TrialConfig
from raypatch.models.flops import model_facts
from raypatch.results import SweepPaths, TrialResult, read_config
from raypatch.study import load_study
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.executors.preflight import needed_bytes
from raypatch.sweep.guard import record_failure
from raypatch.sweep.run import ExecutorOptions, resume_sweep, run_sweep
from raypatch.sweep.watch.display import LiveDisplay
from raypatch.sweep.watch.running import RunningSweep
from raypatch.sweep.watch.status import read_status, show_status
from raypatch.sweep.watch.wording import describe_result
from raypatch.training.loop import Interrupted
from raypatch.words import duration

from tiny import epoch_row, make_images, read_figures, tiny_study, tiny_trial

LOCAL = ExecutorOptions(executor="local")
OPTIONS = RunOptions(device="cpu", threads=1)


def _results(folder: Path) -> dict[str, bytes]:
    return {trial.folder.name: trial.result.read_bytes() for trial in SweepPaths(folder).trial_folders()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images.npz")


def test_the_same_command_again_runs_nothing(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The order goes by what was timed here, where an earlier test timed it: of trials this small that is noise.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    first = run_sweep(tiny_study(data), folder, OPTIONS, LOCAL)
    assert (first.ok, first.left, first.stopped) == (2, 0, None)
    before = _results(folder)
    assert "[2/2] images-p8-s0-" in capsys.readouterr().out  # the costlier patch 4 ran first
    assert run_sweep(tiny_study(data), folder, OPTIONS, LOCAL) == first
    assert _results(folder) == before
    assert not list(folder.rglob("*.tmp")) + list(folder.rglob(".lock")) + list(folder.rglob(".stop"))


def test_a_new_seed_runs_only_what_is_new(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "run"
    run_sweep(tiny_study(data), folder, OPTIONS, LOCAL)
    before = _results(folder)
    after = run_sweep(tiny_study(data, seed=[0, 1]), folder, OPTIONS, LOCAL)
    assert after.ok == 4
    assert {name: _results(folder)[name] for name in before} == before


def test_a_changed_field_makes_new_trials_and_leaves_the_old_alone(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "run"
    run_sweep(tiny_study(data), folder, OPTIONS, LOCAL)
    before = _results(folder)
    outcome = run_sweep(tiny_study(data, lr=[2e-3]), folder, OPTIONS, LOCAL)
    assert outcome.ok == 2
    assert len(_results(folder)) == 4
    assert {name: _results(folder)[name] for name in before} == before
    assert read_status(SweepPaths(folder)).others == 2


def test_a_moved_folder_is_resumed_without_repeating_anything(tmp_path: Path, data: Path) -> None:
    run_sweep(tiny_study(data), tmp_path / "run", OPTIONS, LOCAL)
    removed = SweepPaths(tmp_path / "run").trial_folders()[0].folder
    shutil.rmtree(removed)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    before = _results(tmp_path / "moved")
    outcome = resume_sweep(tmp_path / "moved", {})
    assert (outcome.ok, outcome.left) == (2, 0)
    assert {name: _results(tmp_path / "moved")[name] for name in before} == before


@pytest.mark.parametrize("content", [b"", b"{}", b'{"trial_id'])
def test_a_damaged_result_is_run_again(tmp_path: Path, data: Path, content: bytes) -> None:
    folder = tmp_path / "run"
    run_sweep(tiny_study(data), folder, OPTIONS, LOCAL)
    before = read_figures(SweepPaths(folder))
    SweepPaths(folder).trial_folders()[0].result.write_bytes(content)
    assert run_sweep(tiny_study(data), folder, OPTIONS, LOCAL).ok == 2
    assert read_figures(SweepPaths(folder)) == before


def test_a_crashing_trial_is_retried_then_failed_with_its_traceback(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, calls = tmp_path / "run", []
    real = raypatch.sweep.executors.local.run_guarded

    def crash(config: TrialConfig, *rest: object, **more: object) -> object:
        if config.patch_size == 4:
            calls.append(config)
            raise RuntimeError("the device fell off")
        return real(config, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(raypatch.sweep.executors.local, "run_guarded", crash)
    outcome = run_sweep(tiny_study(data), folder, OPTIONS, LOCAL)
    assert (outcome.ok, len(outcome.errors), len(calls)) == (1, 1, 3)
    (error,) = outcome.errors.values()
    assert "Traceback" in error
    assert "FAILED: RuntimeError: the device fell off" in capsys.readouterr().out

    monkeypatch.setattr(raypatch.sweep.executors.local, "run_guarded", real)
    assert len(run_sweep(tiny_study(data), folder, OPTIONS, LOCAL).errors) == 1
    assert run_sweep(tiny_study(data), folder, OPTIONS, LOCAL, retry_failed=True).ok == 2


def test_diverged_trial_fails_at_once_and_the_sweep_goes_on(tmp_path: Path, data: Path) -> None:
    space = tiny_study(data, optimizer=["sgd"], patch_size=[8], lr=[1e30, 1e-3])
    outcome = run_sweep(space, tmp_path / "run", OPTIONS, LOCAL)
    assert outcome.ok == 1
    (error,) = outcome.errors.values()
    assert "training diverged" in error


def test_time_limit_stops_and_says_so(tmp_path: Path, data: Path) -> None:
    outcome = run_sweep(tiny_study(data, epochs=[5000]), tmp_path / "run", OPTIONS, LOCAL, time_limit=2.0)
    assert outcome.stopped == "time limit"
    assert outcome.left == 2
    assert not outcome.halted
    (log,) = (trial.log.read_text() for trial in SweepPaths(tmp_path / "run").trial_folders())
    assert "stopped as asked; it can go on from its checkpoint" in log
    assert "ERROR" not in log
    assert "Traceback" not in log
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert not (tmp_path / "run" / ".stop").exists()


def test_a_stop_when_all_is_done_stops_nothing(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = raypatch.sweep.executors.local.run_guarded

    def with_a_late_signal(config: TrialConfig, *given: object, **named: object) -> object:
        result = real(config, *given, **named)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(raypatch.sweep.executors.local, "run_guarded", with_a_late_signal)
    study, folder = tiny_study(data), tmp_path / "run"
    assert run_sweep(study, folder, OPTIONS, LOCAL).stopped == "SIGTERM"  # before the second trial
    after = run_sweep(study, folder, OPTIONS, LOCAL)
    assert (after.ok, after.left, after.stopped) == (2, 0, None)
    tell(after)
    assert "stopped" not in "".join(capsys.readouterr())


def test_a_full_disk_halts_with_a_code_of_its_own(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_nothing(*given: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("raypatch.sweep.guard.train_trial", write_nothing)
    outcome = run_sweep(tiny_study(data), tmp_path / "run", OPTIONS, LOCAL)
    assert (outcome.halted, outcome.left, dict(outcome.errors)) == (True, 2, {})
    tell(outcome)
    assert "halted (no space left in" in capsys.readouterr().err
    with pytest.raises(typer.Exit) as ended:
        finish(outcome)
    assert ended.value.exit_code == 3
    (log,) = (trial.log.read_text() for trial in SweepPaths(tmp_path / "run").trial_folders())
    assert "Traceback" not in log


def test_status_reads_the_files_alone(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    run_sweep(tiny_study(data), folder, OPTIONS, LOCAL)
    paths = SweepPaths(folder)
    paths.trial_folders()[0].result.unlink()
    status = read_status(paths)
    assert (status.count("ok"), status.count("stopped"), status.held_by) == (1, 1, None)
    told = json.loads(status.as_json())
    assert told["counts"]["ok"] == 1
    (trial,) = (trial for trial in told["trials"] if trial["state"] == "ok")
    assert trial["config"] == read_config(paths.trial(trial["trial_id"]).config).model_dump(mode="json")
    assert trial["levels"] == {"patch_size": str(trial["config"]["patch_size"])}
    assert trial["best_val"] == json.loads(paths.trial(trial["trial_id"]).result.read_bytes())["val"]
    capsys.readouterr()
    show_status(status)
    assert "1/2 done, 1 stopped" in capsys.readouterr().out


ALONE = {"done": 0, "side_by_side": 1}


def test_eta_follows_what_was_measured() -> None:
    configs = [TrialConfig(dataset="derma", patch_size=p, epochs=2) for p in (4, 7)]
    first, second = (config.trial_id() for config in configs)
    progress = RunningSweep(configs, {first: 100.0, second: 50.0}, done=0, side_by_side=1)
    assert progress.eta_seconds() is None
    progress.started(first)
    progress.epoch(first, epoch_row(1, seconds=100.0))  # expected 50 s: everything takes twice as long
    assert progress.eta_seconds() == pytest.approx(2 * (50 + 50))


def test_eta_counts_what_trials_take_besides_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("raypatch.sweep.watch.running.time.monotonic", lambda: clock[0])
    configs = [TrialConfig(dataset="derma", patch_size=p, epochs=2) for p in (4, 7, 14)]
    first, *others = (config.trial_id() for config in configs)
    progress = RunningSweep(configs, dict.fromkeys([first, *others], 20.0), done=0, side_by_side=1)
    progress.started(first)
    clock[0] = 13.0  # 3 s to start, 10 s of an epoch, as expected
    progress.epoch(first, epoch_row(1, seconds=10.0))
    assert progress.eta_seconds() == pytest.approx(10 + 2 * (3 + 20))
    clock[0] = 23.0
    progress.epoch(first, epoch_row(2, seconds=10.0))
    clock[0] = 24.0  # and 1 s to test it
    progress.finished(TrialResult(trial_id=first, status="ok", epochs=2))
    assert progress.eta_seconds() == pytest.approx(2 * (3 + 20 + 1))


def test_a_kind_that_was_timed_wrongly_spoils_the_time_left_of_no_other() -> None:
    configs = [TrialConfig(dataset="derma", patch_size=p, seed=s, epochs=2) for p in (28, 14, 7, 4) for s in (0, 1)]
    names = [config.trial_id() for config in configs]
    # Other work made the first kind look a hundred times as long as the others, which then take what was expected.
    progress = RunningSweep(configs, dict(zip(names, (1000, 1000, 10, 10, 20, 20, 40, 40), strict=True)), **ALONE)
    for name, seconds in zip(names[0:6:2], (5.0, 5.0, 10.0), strict=True):
        progress.started(name)
        for epoch in (1, 2):
            progress.epoch(name, epoch_row(epoch, seconds=seconds))
        progress.finished(TrialResult(trial_id=name, status="ok", epochs=2))
    assert progress.eta_seconds() == pytest.approx(10 + 10 + 20 + 2 * 40)


def test_the_last_trial_is_not_divided() -> None:
    configs = [TrialConfig(dataset="derma", seed=seed, epochs=2) for seed in (0, 1)]
    first, second = (config.trial_id() for config in configs)
    progress = RunningSweep(configs, {first: 10.0, second: 10.0}, done=0, side_by_side=2)
    progress.started(first)
    progress.started(second)
    progress.epoch(first, epoch_row(1, seconds=5.0))
    assert progress.eta_seconds() == pytest.approx(10)
    progress.finished(TrialResult(trial_id=first, status="ok", epochs=2))
    progress.epoch(second, epoch_row(1, seconds=5.0))
    assert progress.eta_seconds() == pytest.approx(5), "one trial is left, and has no use for two places"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        # One kind tells nothing of the others; two that agree do; two that do not tell that neither was timed well.
        ([60.0], ["perhaps"]),
        ([60.0, 30.0], ["perhaps", "about"]),
        ([60.0, 600.0], ["perhaps", "perhaps"]),
        ([60.0, 600.0, 10.0], ["perhaps", "perhaps", "about"]),
    ],
)
def test_a_time_left_that_rests_on_little_says_so(seconds: list[float], words: list[str]) -> None:
    configs = [TrialConfig(dataset="derma", patch_size=p, epochs=2) for p in (4, 7, 14)]
    names = [config.trial_id() for config in configs]
    progress = RunningSweep(configs, dict(zip(names, (100.0, 50.0, 10.0), strict=True)), **ALONE)
    assert progress.time_left() is None
    said = []
    for name, each in zip(names, seconds, strict=False):
        progress.started(name)
        progress.epoch(name, epoch_row(1, seconds=each))
        said.append((progress.time_left() or "").split()[0])
    assert said == words


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (0.4, 59, 185, 7620)] == ["0s", "59s", "3m 05s", "2h 07m"]


def test_live_display_fits_80_and_160_columns() -> None:
    from rich.console import Console

    config = TrialConfig(dataset="derma", patch_size=4)
    display = LiveDisplay([config], {config.trial_id(): 10.0}, done=3, side_by_side=1)
    display.started(config.trial_id())
    for width in (80, 160):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(display.render())
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert "3/4 done, 0 failed, 1 running, 0 left" in lines[0]
        assert any("dermamnist-p4-s0" in line and "0/100" in line for line in lines)
    display.epoch(config.trial_id(), epoch_row(7, peak_memory_bytes=3 << 29, images_per_second=1.0))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(display.render())
    (line,) = (line for line in console.export_text().splitlines() if "dermamnist-p4-s0" in line)
    assert line.split()[1:] == ["7/100", "0.5000", "1", "1.5", "GiB"]


def test_the_score_that_selects_is_shown_beside_the_loss() -> None:
    from rich.console import Console

    config = TrialConfig(dataset="derma", patch_size=4, selection="val_balanced_accuracy")
    display = LiveDisplay([config], {config.trial_id(): 10.0}, done=0, side_by_side=1)
    display.started(config.trial_id())
    display.epoch(config.trial_id(), epoch_row(7, 0.25))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(display.render())
    text = console.export_text()
    assert "val balanced accuracy" in text
    assert "auc" not in text.lower()
    (line,) = (line for line in text.splitlines() if "dermamnist-p4-s0" in line)
    assert line.split()[1:4] == ["7/100", "0.2500", "0.500"]


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_and_in_process_give_the_same_bits(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tiny_study(data, seed=[0, 1])
    run_sweep(space, tmp_path / "local", OPTIONS, LOCAL)
    capsys.readouterr()
    ray = ExecutorOptions(executor="ray", cpus_per_trial=1)
    outcome = run_sweep(space, tmp_path / "ray", OPTIONS, ray)
    assert (outcome.ok, outcome.left) == (4, 0)
    captured = capsys.readouterr()
    assert captured.err == ""  # Ray itself says nothing
    # What is said of the data, then a line for each trial.
    assert [line[:3] for line in captured.out.splitlines()] == ["0 o", "ima", "[1/", "[2/", "[3/", "[4/"]
    assert read_figures(SweepPaths(tmp_path / "ray")) == read_figures(SweepPaths(tmp_path / "local"))
    assert not list((tmp_path / "ray").rglob(".*"))


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_signal_stops_ray_within_a_step_and_leaves_nothing(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, signalled = tmp_path / "run", []
    handler = signal.getsignal(signal.SIGTERM)

    def signal_after_a_checkpoint() -> None:
        while not list(folder.rglob("last.ckpt")):
            time.sleep(0.1)
        signalled.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=signal_after_a_checkpoint, daemon=True).start()
    execution = ExecutorOptions(executor="ray", cpus_per_trial=1)
    outcome = run_sweep(tiny_study(data, epochs=[5000], seed=[0, 1, 2, 3]), folder, OPTIONS, execution)
    assert time.monotonic() - signalled[0] < 20
    assert (outcome.stopped, outcome.left) == ("SIGTERM", 8)
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 2
    assert captured.err == ""
    assert list(folder.rglob("last.ckpt"))
    assert not list(folder.rglob(".*"))
    assert signal.getsignal(signal.SIGTERM) is handler


def test_room_is_checked_before_anything_starts(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match=f"--cpus-per-trial {cores + 1} is more than the {cores} cores"):
        run_sweep(tiny_study(data), tmp_path / "run", OPTIONS, ExecutorOptions(cpus_per_trial=cores + 1))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match=r"has 0.0 GB free and the 2 trials left need .* --runs-dir"):
        run_sweep(tiny_study(data), tmp_path / "run", OPTIONS, LOCAL)
    assert not list((tmp_path / "run").rglob("*.json"))


@pytest.mark.parametrize(
    ("alone", "together", "cpus", "words"),
    [
        # Least seconds of a step by round. One of them may be falsified by other work that begins or ends.
        ([1.2, 1.2], [1.0, 1.0], 1, "measured at 1.67 times"),
        ([1.9, 1.9], [1.0, 1.0], 2, "one trial at a time on 2 cores: a core for each was measured at 1.05 times"),
        ([1.9, 1.9], [112.0, 1.0], 2, "at 1.05 times"),
        ([9.0, 1.2], [1.0, 1.0], 1, "at 1.67 times"),
        ([1.0, 1.0], [56.0, 64.0], 1, "no faster on all cores than on one"),
    ],
)
def test_cores_are_shared_as_measured(
    data: Path, monkeypatch: pytest.MonkeyPatch, alone: list[float], together: list[float], cpus: int, words: str
) -> None:
    from raypatch.sweep.cost import placement

    resolved = resolve_trials(tiny_study(data))
    options = OPTIONS.model_copy(update={"files": resolved.files})
    left = {1: iter(alone), 2: iter(together)}
    monkeypatch.setattr(placement, "taken_cores", lambda: 0.1)
    monkeypatch.setattr(placement, "step_seconds", lambda config, options, threads: next(left[threads]))
    said: list[str] = []
    placed = placement.place_on_cores(resolved.trials, options, placement.Room(cores=2), said.append)
    assert (placed.cpus, placed.slots) == (cpus, 2 // cpus)
    (line,) = said
    assert words in line


def test_beside_other_work_each_trial_has_a_core_and_nothing_is_measured(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypatch.sweep.cost import placement

    resolved = resolve_trials(tiny_study(data))
    options = OPTIONS.model_copy(update={"files": resolved.files})
    monkeypatch.setattr(placement, "taken_cores", lambda: 0.6)
    monkeypatch.delattr(placement, "step_seconds")
    said: list[str] = []
    placed = placement.place_on_cores(resolved.trials, options, placement.Room(cores=2), said.append)
    assert (placed.cpus, placed.slots) == (1, 2)
    assert said[0].startswith("2 trials side by side: other work runs here and takes 0.6 of")


@pytest.mark.parametrize(("threads", "forced", "told"), [(None, None, 1), (1, None, 0), (None, 1, 0)])
def test_in_this_process_other_work_is_told_of_where_threads_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None, forced: int | None, told: int
) -> None:
    from raypatch.sweep.executors import local
    from raypatch.sweep.session import Session
    from raypatch.sweep.stop import StopRequest

    said: list[str] = []
    options, execution = RunOptions(device="cpu", threads=threads), LOCAL.model_copy(update={"cpus_per_trial": forced})
    paths = SweepPaths(tmp_path)
    monkeypatch.setattr(local, "taken_cores", lambda: 0.6)
    monkeypatch.setattr("raypatch.sweep.executors.machine.available_cores", lambda: 2)
    session = Session(paths, options, execution, StopRequest(paths.stop), say=said.append)
    placed = local.LocalExecutor(session).place([])
    assert (placed.cpus, placed.slots) == (forced or 2, 1)
    assert sum("--cpus-per-trial 1 may be faster" in line for line in said) == len(said) == told


def test_a_step_is_really_measured(data: Path) -> None:
    from raypatch.sweep.cost.placement import step_seconds, typical_trial

    resolved = resolve_trials(tiny_study(data))
    trials, files = resolved.trials, resolved.files
    options = OPTIONS.model_copy(update={"files": files})
    typical = typical_trial(trials, options)
    assert typical is not None
    assert typical.patch_size == 4
    assert 0 < step_seconds(typical, options, threads=1) < 10


@pytest.mark.parametrize(("gpus", "share", "slots"), [(1, 1.0, 1), (1, 0.25, 4), (2, 0.5, 4), (1, 0.3, 3), (3, 1.0, 3)])
def test_a_forced_share_never_exceeds_a_gpu(gpus: int, share: float, slots: int) -> None:
    from raypatch.sweep.cost.placement import Room, place_on_gpus

    placed = place_on_gpus([], OPTIONS, Room(cores=8, gpus=gpus, card_bytes=0, gpu_share=share))
    assert placed.slots == slots
    assert placed.slots * placed.gpu_share <= gpus + 1e-9
    assert placed.cpus * placed.slots <= 8
    assert placed.as_bundle("any") == {"CPU": placed.cpus, "GPU": share}


def test_shares_follow_memory_and_load() -> None:
    from raypatch.models.flops import model_facts
    from raypatch.models.memory import training_bytes
    from raypatch.sweep.cost.placement import Room, place_on_gpus, share_of

    card = 24 << 30
    trials = [TrialConfig(dataset="adrenal", patch_size=p, lr=1e-5) for p in (28, 14, 7, 4, 2)]
    shares = [share_of(config, OPTIONS, card) for config in trials]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.25, 1.0)
    for config, share in zip(trials, shares, strict=True):
        facts = model_facts(config, dimensions=3, outputs=2)
        need = training_bytes(config, facts, "float32", micro_batch=config.batch_size)
        assert need <= share * card or share == 1.0
    assert share_of(trials[0], OPTIONS, 1 << 30) == 1.0  # on a small card the memory decides
    placed = place_on_gpus(trials, OPTIONS, Room(cores=16, card_bytes=card))
    assert (placed.slots, placed.cpus) == (4, 4)
    assert [placed.as_bundle(config.trial_id())["GPU"] for config in trials] == shares


def test_a_failed_result_is_described_by_its_last_line(tmp_path: Path) -> None:

    result = TrialResult(trial_id="x", status="failed", error="Traceback\nValueError: no\n")
    config = TrialConfig(dataset="derma", patch_size=4, selection="val_auc")
    assert describe_result(config, result) == "x FAILED: ValueError: no"
    over = TrialResult(trial_id="x", status="ok", val={"loss": 0.5, "auc": 0.75}, train_seconds=61.0)
    assert describe_result(config, over) == "x val loss 0.5000 auc 0.750 in 1m 01s"
    by_loss = config.model_copy(update={"selection": "val_loss"})
    assert describe_result(by_loss, over) == "x val loss 0.5000 in 1m 01s"


def test_errors_with_brackets_are_shown_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    run_sweep(tiny_study(make_images(tmp_path / "a.npz"), patch_size=[4]), folder, OPTIONS, LOCAL)
    (trial,) = SweepPaths(folder).trial_folders()
    config = read_config(trial.config)
    record_failure(config, trial, "RuntimeError: [enforce fail at alloc_cpu.cpp] err == 0 [/red]")
    show_status(read_status(SweepPaths(folder)))
    assert "[enforce fail at alloc_cpu.cpp] err == 0 [/red]" in capsys.readouterr().out


def test_checkpoints_of_all_that_run_at_once_need_room(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "a.npz"))
    trials = [config.model_copy(update={"seed": seed}) for seed in range(4)]
    one, three = (needed_bytes(trials, options, side_by_side=count) for count in (1, 3))
    weights = 4 * model_facts(config, dimensions=2, outputs=2).parameters
    assert three - one == 2 * 6 * weights


def test_space_yaml_of_a_run_folder_repeats_it_from_anywhere(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Path(data.name)
    study = tiny_study(relative).override({"seed": [3], "epochs": [1], "dataset": [str(relative)]})
    run_sweep(study, tmp_path / "run", OPTIONS, LOCAL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    repeated = load_study(tmp_path / "run" / "space.yaml")
    assert repeated.grid["dataset"] == [str(data)]
    run_sweep(repeated, elsewhere / "run", OPTIONS, LOCAL)
    assert read_figures(SweepPaths(elsewhere / "run")) == read_figures(SweepPaths(tmp_path / "run"))


def test_a_run_moved_with_its_data_finds_them_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old"
    (old / "data").mkdir(parents=True)
    data = make_images(old / "data" / "images.npz")
    monkeypatch.setattr(raypatch.sweep.executors.local, "run_guarded", _interrupt)
    assert run_sweep(tiny_study(data), old / "runs" / "tiny", OPTIONS, LOCAL).left == 2
    monkeypatch.undo()
    old.rename(tmp_path / "new")
    outcome = resume_sweep(tmp_path / "new" / "runs" / "tiny", {})
    assert (outcome.ok, outcome.left) == (2, 0)


def _interrupt(*given: object, **named: object) -> None:
    raise Interrupted
