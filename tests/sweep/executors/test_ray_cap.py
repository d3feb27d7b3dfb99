"""At most the allowed number of GPUs is ever in use, on one node and on several; what cannot be met is an error."""

import contextlib
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import SweepPaths, read_result
from raypatch.study.resolve import resolve_trials
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.groups import group_trials
from raypatch.sweep.session import ExecutorOptions, Session, Work
from raypatch.sweep.stop import StopRequest
from raypatch.sweep.watch.running import RunningSweep

from tiny import epoch_row, make_images, tiny_study

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    # ray.cluster_utils looks for free ports with sockets that it leaves to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextlib.contextmanager
def _ray_of_nodes(gpus: Sequence[int]) -> Iterator[None]:
    """Connect to a Ray of some nodes, each with so many made-up GPUs."""
    from raypatch.sweep.services import ray_setup  # noqa: F401 - makes the settings that ray reads when it is imported

    # isort: split
    import ray
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = {"num_cpus": 4, "num_gpus": gpus[0], "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for count in gpus[1:]:
            cluster.add_node(num_cpus=4, num_gpus=count)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def ray_nodes(request: pytest.FixtureRequest) -> Iterator[None]:
    """A Ray of nodes with so many cards each, which starts once for all tests that ask for the same in a row."""
    with _ray_of_nodes(request.param):
        yield


on_four_cards = pytest.mark.parametrize("ray_nodes", [(4,), (2, 2)], ids=str, indirect=True, scope="module")
on_three_nodes = pytest.mark.parametrize("ray_nodes", [(1, 1, 1)], ids=str, indirect=True, scope="module")


class _Watch(RunningSweep):
    """Remembers how many trials ran at once."""

    most = 0

    def started(self, trial_id: str) -> None:
        super().started(trial_id)
        self.most = max(self.most, len(self.running))


def _sweep(
    tmp_path: Path, placement: Placement, gpus: int, *, trials: int = 3, epochs: int = 2
) -> tuple[_Watch, list[set[str]]]:
    """Run some tiny trials; returns the watch and, per trial, the cards that it saw."""
    from raypatch.sweep.executors.tuner import run_on_ray

    data = make_images(tmp_path / "own.npz")
    study = tiny_study(data, fixed={"epochs": epochs}, patch_size=[4], seed=list(range(trials)))
    resolved = resolve_trials(study)
    paths = SweepPaths(tmp_path / "run")
    paths.trials.mkdir(parents=True)
    options = RunOptions(device="cpu", threads=1, files=resolved.files)
    watch = _Watch(resolved.trials, {config.trial_id(): 1.0 for config in resolved.trials}, done=0, side_by_side=1)
    session = Session(paths, options, ExecutorOptions(gpus=gpus, retries=0), StopRequest(paths.stop))
    run_on_ray(session, Work(group_trials(resolved.trials), placement, watch), tmp_path / "storage")
    seen = []
    for trial in paths.trial_folders():
        result = read_result(trial.result)
        assert result is not None
        assert result.status == "ok", result.error
        (cards,) = re.findall(r"on (\S+), visible GPUs: (\S*)", trial.log.read_text())
        seen.append(set(cards[1].split(",")))
    return watch, seen


@on_four_cards
@pytest.mark.parametrize(("share", "at_once"), [(1.0, 1), (0.5, 2)])
def test_one_card_is_used_of_four(tmp_path: Path, ray_nodes: None, share: float, at_once: int) -> None:
    watch, seen = _sweep(tmp_path, Placement(cpus=1, gpu_share=share, slots=at_once), gpus=1)
    assert watch.most <= at_once
    assert all(cards == seen[0] and len(cards) == 1 for cards in seen)


@on_three_nodes
def test_more_cards_are_used_when_asked_for(tmp_path: Path, ray_nodes: None) -> None:
    watch, _ = _sweep(tmp_path, Placement(cpus=1, gpu_share=1.0, slots=2), gpus=2, trials=3, epochs=100)
    assert watch.most == 2


@on_three_nodes
def test_what_cannot_be_met_is_an_error_at_once(ray_nodes: None, tmp_path: Path) -> None:
    from raypatch.sweep.executors.ray_cap import place_under_cap

    began = time.monotonic()
    with pytest.raises(ValueError, match="no node of Ray has that"):
        _sweep(tmp_path, Placement(cpus=64, gpu_share=0.0, slots=1), gpus=1)
    with pytest.raises(ValueError, match="no node of Ray has that"):
        place_under_cap(Placement(cpus=5, gpu_share=1.0, slots=1), 1)
    assert time.monotonic() - began < 10


@on_three_nodes
def test_shares_are_not_spread_over_nodes(ray_nodes: None) -> None:
    from raypatch.sweep.executors.ray_cap import place_under_cap

    with pytest.raises(ValueError, match="--gpu-share 1"):
        place_under_cap(Placement(cpus=1, gpu_share=0.5, slots=4), 2)


def test_configs_survive_the_way_through_ray() -> None:
    config = TrialConfig(dataset="derma", patch_size=4, lr=3e-4)
    assert TrialConfig.model_validate(config.model_dump(mode="json")).trial_id() == config.trial_id()


def test_epochs_survive_the_way_through_ray_s_flattened_results() -> None:
    from ray.tune.utils import flatten_dict

    from raypatch.sweep.executors import tuner
    from raypatch.sweep.watch.reported import rows_of

    row, reported = epoch_row(3, float("nan")), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner.tune, "report", reported.append)
        tuner.Reports(every_seconds=0).add("trial", row)
    ((trial_id, found),) = rows_of(flatten_dict(reported[0] | {"config": {"spec": {}}}))
    assert trial_id == "trial"
    assert found.model_dump_json() == row.model_dump_json()
