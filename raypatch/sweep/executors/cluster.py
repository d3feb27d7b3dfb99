"""The cluster executor: Ray Tune on the nodes of a running cluster, all checked before the start."""

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# First of all, because it makes the settings that ray reads when it is imported.
from raypatch.sweep.services import ray_setup  # noqa: F401

# isort: split
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypatch.config import RunOptions, TrialConfig
from raypatch.sweep.cost.placement import Placement, Room, check_cores, check_gpus, place_trials
from raypatch.sweep.executors.node import describe_difference, identify
from raypatch.sweep.executors.preflight import check_folder, one_per_model
from raypatch.sweep.executors.tuner import RaypatchTrial, run_on_ray
from raypatch.sweep.session import Session, Work

PATIENCE = 60.0
"""Seconds of silence after which it is said which nodes are waited for."""

SLIVER = 0.001
"""Share of a GPU that a check asks for, so that it sees the card."""

Question = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function that a node calls, and its arguments."""

Answer = dict[str, Any]
"""What the function returned: always its problems, a list of texts."""


@dataclass(frozen=True)
class Node:
    """An alive node.

    cpus, gpus: how many Ray gives out there. card_bytes: memory of one of its GPUs, once checked.
    """

    id: str
    name: str
    cpus: int
    gpus: int
    card_bytes: int | None = None


class ClusterExecutor:
    """Runs trials on the cluster that is connected.

    nodes: those that trials can run on, and node_options: the options as trials there take them;
    both once `check` knows the device. versions: what every node must have. actor: as in
    RayExecutor.
    """

    actor: type = RaypatchTrial

    def __init__(self, session: Session) -> None:
        self.session = session
        self.node_options = session.options
        self.versions = identify()
        self.nodes: list[Node] = []

    def check(self, trials: Sequence[TrialConfig]) -> None:
        """Check code, storage, data and device of every node that trials can run on.

        Raises ValueError with each node's problems and the way out.
        """
        check_folder(self.session.paths.folder)
        nodes = alive_nodes()
        device = choose_device(self.session.options.device, nodes)
        self.nodes = [node for node in nodes if node.cpus and (node.gpus or device == "cpu")]
        self._check_room(device)
        self.node_options = options_on_nodes(self.session.options, device)
        answers, problems = self._look_at_nodes(trials)
        if problems:
            raise ValueError(_describe_problems(problems))
        checked = []
        for node in self.nodes:
            checked.append(dataclasses.replace(node, card_bytes=answers[node]["card_bytes"]))
        self.nodes = checked
        names = ", ".join(node.name for node in checked)
        self.session.say(f"{len(checked)} nodes of the cluster are ready: {names}")

    def place(self, trials: Sequence[TrialConfig]) -> Placement:
        """Return what each trial asks for, found out on the node with the fewest cores (per GPU)."""
        # What fits on the smallest node fits on all, so that each takes part.
        smallest = min(self.nodes, key=_cores_per_gpu)
        room = self._room_on(smallest)
        question = _place_on_node, (list(trials), self.node_options, room)
        answer = self._ask({smallest: question})[smallest]
        if answer["problems"]:
            raise ValueError(f"node {smallest.name}: {answer['problems'][0]}")
        placement: Placement = answer["placement"]
        for line in answer["said"]:
            self.session.say(f"{line}, on {smallest.name}")
        if room.card_bytes is None:
            slots = sum(node.cpus // placement.cpus for node in self.nodes)
        else:
            slots = placement.slots // room.gpus * self.session.execution.gpus
        return dataclasses.replace(placement, slots=max(1, slots))

    def run(self, work: Work) -> None:
        # Ray Tune wants a folder that all nodes see: the run folder is one.
        storage = self.session.paths.bookkeeping
        storage.mkdir()
        try:
            session = dataclasses.replace(self.session, options=self.node_options)
            run_on_ray(session, work, storage, versions=self.versions, actor=self.actor)
        finally:
            shutil.rmtree(storage, ignore_errors=True)

    def _check_room(self, device: str) -> None:
        """Raise ValueError for resources that the cluster does not have."""
        if not self.nodes:
            raise ValueError("no node of the cluster gives out CPUs to trials; start one with `ray start --address`")
        execution = self.session.execution
        most_cores = max(node.cpus for node in self.nodes)
        check_cores(execution.cpus_per_trial, most_cores, "the cluster's largest node")
        if device == "cuda":
            check_gpus(execution.gpus, sum(node.gpus for node in self.nodes), "the cluster")

    def _look_at_nodes(self, trials: Sequence[TrialConfig]) -> tuple[dict[Node, Answer], dict[str, list[str]]]:
        """Return what each node found out about itself, and by problem the names of its nodes."""
        configs = [config.model_dump(mode="json") for config in one_per_model(trials)]
        options = self.node_options.model_dump(mode="json")
        folder = self.session.paths.folder
        problems: dict[str, list[str]] = {}
        with _probe(folder) as probe:
            questions: dict[Node, Question] = {}
            for node in self.nodes:
                arguments = (self.versions, node.id, str(folder), probe, configs, options)
                questions[node] = _look, arguments
            answers = self._ask(questions)
            # The answers to the probe are looked at here, before they are removed with it.
            for node, answer in answers.items():
                for problem in self._problems_of(node, answer, probe):
                    problems.setdefault(problem, []).append(node.name)
        return answers, problems

    def _problems_of(self, node: Node, answer: Answer, probe: str) -> list[str]:
        """What a node's answer says against it."""
        if "versions" in answer:
            return [describe_difference(self.versions, answer["versions"])]
        problems = list(answer["problems"])
        folder = self.session.paths.folder
        # A node can see a folder of the same name that is another one: its answer is missing then.
        if not problems and not (folder / f"{probe}.{node.id}").exists():
            problems.append(f"has another folder at {folder}; put the run folder where all nodes see it")
        return problems

    def _room_on(self, node: Node) -> Room:
        """What trials may have of `node`, as one of many."""
        execution = self.session.execution
        share = execution.gpu_share
        gpus_of_all = sum(each.gpus for each in self.nodes)
        gpus_of_largest = max(each.gpus for each in self.nodes)
        if gpus_of_all > execution.gpus > gpus_of_largest:
            # Over several nodes the cap holds for whole cards alone.
            share = share or 1.0
        cards = [each.card_bytes for each in self.nodes if each.card_bytes]
        return Room(
            cores=node.cpus,
            gpus=min(execution.gpus, node.gpus),
            card_bytes=min(cards, default=None),
            cpus=execution.cpus_per_trial,
            gpu_share=share,
        )

    def _ask(self, questions: Mapping[Node, Question]) -> dict[Node, Answer]:
        """Call a function on each node, all at once; a call that breaks gives its problem as the answer."""
        waiting: dict[Any, Node] = {}
        # Ray's types lack this scheduling strategy.
        remote: Any = ray.remote
        for node, (function, arguments) in questions.items():
            pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
            share = SLIVER if node.gpus else 0
            # No cores are asked for: a check need not wait until other work leaves one.
            decorate = remote(num_cpus=0, num_gpus=share, max_retries=0, scheduling_strategy=pinned)
            waiting[decorate(function).remote(*arguments)] = node
        answers: dict[Node, Answer] = {}
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=PATIENCE)
            if not ready:
                names = ", ".join(node.name for node in waiting.values())
                self.session.say(f"waiting for {names}: busy with other work, or fetching data")
            for reference in ready:
                node = waiting.pop(reference)
                try:
                    answers[node] = ray.get(reference)
                except ray.exceptions.RayError as error:
                    last = str(error).strip().splitlines()[-1]
                    answers[node] = {"problems": [f"cannot be asked ({last}); look at its Ray's logs"]}
        return answers


def _cores_per_gpu(node: Node) -> tuple[float, str]:
    """The order of nodes by cores per GPU; by name where they are equal."""
    return node.cpus / (node.gpus or 1), node.name


def _describe_problems(problems: Mapping[str, Sequence[str]]) -> str:
    """All problems in lines, each with the names of its nodes."""
    lines = ["the cluster is not fit for this sweep, nothing was started"]
    for problem, names in problems.items():
        lines.append(f"  node {', '.join(names)}: {problem}")
    return "\n".join(lines)


def options_on_nodes(options: RunOptions, device: str) -> RunOptions:
    """The options as all nodes take them: their device, and absolute paths."""
    # A worker's current folder is not the driver's.
    files = {identity: path.absolute() for identity, path in options.files.items()}
    data_dir = options.data_dir.expanduser().absolute() if options.data_dir else None
    return options.model_copy(update={"device": device, "data_dir": data_dir, "files": files})


def alive_nodes() -> list[Node]:
    """The alive nodes of the connected Ray, by address."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            name = f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
            found.append(Node(node["NodeID"], name, int(has.get("CPU", 0)), int(has.get("GPU", 0))))
    return sorted(found, key=lambda node: node.name)


def choose_device(option: str, nodes: Sequence[Node]) -> str:
    """Say what --device means on a cluster: cuda where nodes have GPUs, unless cpu is asked for.

    Raises ValueError for a device that a cluster does not have.
    """
    has_gpus = any(node.gpus for node in nodes)
    if option == "auto":
        return "cuda" if has_gpus else "cpu"
    if option not in ("cpu", "cuda"):
        raise ValueError(f"--device {option} names no device of a whole cluster; use auto, cpu or cuda")
    if option == "cuda" and not has_gpus:
        raise ValueError("--device cuda: no node of the cluster has a GPU; use --device auto or cpu")
    return option


@contextlib.contextmanager
def _probe(folder: Path) -> Iterator[str]:
    """Put a marker file into `folder`, to which the nodes answer with a file beside it.

    Yields its name, and removes it and the answers at the end.
    """
    name = f".probe.{os.getpid()}.{secrets.token_hex(4)}"
    (folder / name).write_text(name)
    try:
        yield name
    finally:
        for path in folder.glob(f"{name}*"):
            path.unlink(missing_ok=True)


def _look_by_value() -> Callable[..., dict[str, Any]]:
    """Return the question of the check as a function inside one.

    Ray sends such a function whole, and one of a module by its name. So a node without raypatch
    can still answer that it has none.
    """

    def look(
        versions: dict[str, str],
        node_id: str,
        folder: str,
        probe: str,
        trials: list[Any],
        options: dict[str, Any],
    ) -> dict[str, Any]:
        try:
            from raypatch.sweep.executors.node import examine, identify
        except ImportError as error:
            need = f"raypatch {versions['raypatch']}"
            return {"problems": [f"cannot run {need} ({error}); install it for the Python of that node's Ray"]}
        found = identify()
        if found != versions:
            return {"versions": found, "problems": []}
        return examine(folder, probe, node_id, trials, options)

    return look


_look = _look_by_value()


def _place_on_node(trials: Sequence[TrialConfig], options: RunOptions, room: Room) -> dict[str, Any]:
    said: list[str] = []
    placement = place_trials(trials, options, room, said.append)
    return {"placement": placement, "said": said, "problems": []}
