"""What is settled before a sweep starts on a cluster: addresses, devices, resources, the cap on GPUs over nodes."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raypatch.config import RunOptions
from raypatch.results import SweepPaths
from raypatch.sweep.cost.placement import Placement
from raypatch.sweep.executors.node import admit, describe_difference, examine, identify
from raypatch.sweep.executors.preflight import check_address
from raypatch.sweep.guard import SweepHaltedError
from raypatch.sweep.session import ExecutorOptions, Session
from raypatch.sweep.stop import StopRequest

from tiny import make_images, tiny_trial

pytestmark = [
    pytest.mark.xdist_group("ray"),
    # ray.cluster_utils looks for free ports with sockets that it leaves to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Nodes = Callable[..., None]


@pytest.fixture
def ray_nodes() -> Iterator[Nodes]:
    """Connect to a Ray of nodes with so many CPUs and made-up GPUs each."""
    from raypatch.sweep.services import ray_setup  # noqa: F401 - makes the settings that ray reads when it is imported

    # isort: split
    import ray
    from ray.cluster_utils import Cluster

    clusters = []

    def start(*nodes: tuple[int, int]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cluster = Cluster()
            clusters.append(cluster)
            for cpus, gpus in nodes:
                cluster.add_node(num_cpus=cpus, num_gpus=gpus, include_dashboard=False)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

    yield start
    ray.shutdown()
    for cluster in clusters:
        cluster.shutdown()


def _session(folder: Path, options: RunOptions, said: list[str], **execution: Any) -> Session:
    paths = SweepPaths(folder)
    chosen = ExecutorOptions(address="auto", **execution)
    return Session(paths, options, chosen, StopRequest(paths.stop), say=said.append)


@pytest.mark.parametrize("address", ["head", "10.0.0.1", "ray://10.0.0.1:10001", "10.0.0.1:port", ":6379"])
def test_an_address_has_a_form(address: str) -> None:
    from raypatch.sweep.services.ray_setup import joined_ray

    with pytest.raises(ValueError, match="must be auto or the HOST:PORT"), joined_ray(address):
        pass


def test_where_nothing_answers_it_is_said_at_once() -> None:
    from raypatch.sweep.services.ray_setup import joined_ray

    with pytest.raises(ValueError, match="no Ray cluster answers at"), joined_ray("127.0.0.1:1"):
        pass


def test_an_address_goes_with_ray_and_no_dashboard_of_its_own() -> None:
    check_address("local", "local", dashboard=True)
    with pytest.raises(ValueError, match="--address local"):
        check_address("auto", "local", dashboard=False)
    with pytest.raises(ValueError, match="--no-dashboard"):
        check_address("auto", "ray", dashboard=True)


def test_devices_of_a_cluster() -> None:
    from raypatch.sweep.executors.cluster import Node, choose_device

    plain, card = Node("a", "a", 4, 0), Node("b", "b", 4, 1)
    assert choose_device("auto", [plain]) == "cpu"
    assert choose_device("auto", [plain, card]) == "cuda"
    assert choose_device("cpu", [plain, card]) == "cpu"
    for asked, nodes in (("cuda", [plain]), ("cuda:1", [card]), ("mps", [card])):
        with pytest.raises(ValueError, match=f"--device {asked}"):
            choose_device(asked, nodes)


def test_a_difference_names_both_sides() -> None:
    here = identify()
    assert describe_difference(here, here) == ""
    assert f"torch 1.0 (here {here['torch']})" in describe_difference(here, here | {"torch": "1.0"})
    assert "+" not in here["torch"]


def test_a_node_answers_the_probe_and_names_what_it_lacks(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "own.npz"))
    trials, where = [config.model_dump(mode="json")], options.model_dump(mode="json")
    (tmp_path / ".probe").write_text("here")
    assert examine(str(tmp_path), ".probe", "one", trials, where) == {"problems": [], "card_bytes": None}
    assert (tmp_path / ".probe.one").read_text() == "here"
    (tmp_path / "own.npz").unlink()
    folder, data = examine(str(tmp_path / "absent"), ".probe", "two", trials, where)["problems"]
    assert "does not see the run folder" in folder
    assert "own.npz" in data


def test_a_node_that_came_later_is_looked_at_too(tmp_path: Path) -> None:
    config, options = tiny_trial(make_images(tmp_path / "own.npz"))
    paths = SweepPaths(tmp_path)
    with pytest.raises(SweepHaltedError, match="does not see the run folder"):
        admit(config, paths, options, identify())
    paths.record.touch()
    admit(config, paths, options, identify())
    with pytest.raises(SweepHaltedError, match="code"):
        admit(config, paths, options, identify() | {"code": "0" * 12})


@pytest.mark.ray
@pytest.mark.cluster
def test_trials_take_every_node_s_cores(ray_nodes: Nodes, tmp_path: Path) -> None:
    from raypatch.sweep.executors.cluster import ClusterExecutor

    config, options = tiny_trial(make_images(tmp_path / "own.npz"))
    ray_nodes((0, 0), (2, 0), (5, 0))
    said: list[str] = []
    with pytest.raises(ValueError, match="--cpus-per-trial 6 is more than"):
        ClusterExecutor(_session(tmp_path, options, said, cpus_per_trial=6)).check([config])
    cluster = ClusterExecutor(_session(tmp_path, options, said, cpus_per_trial=2))
    cluster.check([config])
    assert "2 nodes of the cluster are ready" in said[0]
    assert not list(tmp_path.glob(".*"))
    placement = cluster.place([config])
    assert (placement.cpus, placement.slots, placement.gpu_share) == (2, 3, 0.0)


@pytest.mark.ray
@pytest.mark.cluster
def test_eight_cards_on_eight_nodes_are_used_when_asked_for(ray_nodes: Nodes, tmp_path: Path) -> None:
    from raypatch.sweep.executors.cluster import ClusterExecutor, Node, alive_nodes
    from raypatch.sweep.executors.ray_cap import place_under_cap, room_watcher

    config, options = tiny_trial(make_images(tmp_path / "own.npz"))
    options = options.model_copy(update={"device": "auto"})
    ray_nodes((2, 0), *[(2, 1)] * 8)

    def cluster_for(gpus: int) -> ClusterExecutor:
        return ClusterExecutor(_session(tmp_path, options, [], gpus=gpus))

    with pytest.raises(ValueError, match="--gpus 9 is more than the 8"):
        cluster_for(9).check([config])
    with pytest.raises(ValueError, match="device 'cuda' is missing"):  # the cards are made up
        cluster_for(8).check([config])

    def place(gpus: int) -> Placement:
        cluster = cluster_for(gpus)
        cluster.nodes = [Node(n.id, n.name, n.cpus, n.gpus, 80 << 30) for n in alive_nodes() if n.gpus]
        cluster.node_options = options.model_copy(update={"device": "cpu"})
        return cluster.place([config])

    shared = place(8)
    assert (shared.gpu_share, shared.slots) == (0.25, 32)
    assert place_under_cap(shared, 8) == ({"bundles": [shared.as_bundle()]}, None)
    whole = place(3)
    assert (whole.gpu_share, whole.slots) == (1.0, 3)
    assert place_under_cap(whole, 3)[1] == 3
    request, _ = place_under_cap(Placement(1, 0.5, 2), 1)
    assert room_watcher({"CPU": 1.0}, request)() is None
    gone = {"bundle_label_selector": [{"ray.io/node-id": "0" * 56}]}
    assert "is gone" in str(room_watcher({"CPU": 1.0}, gone)())
