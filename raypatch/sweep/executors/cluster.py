"""A Ray cluster as the place of a sweep: the check of its nodes before the start, and what trials get there."""

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypatch.sweep.executors import ray_setup  # noqa: F401 - makes the settings that ray reads when it is imported

# isort: split
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypatch.config import RunOptions, TrialConfig
from raypatch.results import SweepPaths
from raypatch.sweep.cost.placement import Placement, place_trials
from raypatch.sweep.executors.node import describe_difference, identify

PATIENCE = 60.0
"""Seconds of silence after which it is said which nodes are waited for."""

SLIVER = 0.001
"""Share of a GPU that a check asks for, so that it sees the card."""


@dataclass(frozen=True)
class Node:
    """An alive node. cpus, gpus: how many Ray gives out there; card_bytes: memory of one of its GPUs, once checked."""

    id: str
    name: str
    cpus: int
    gpus: int
    card_bytes: int | None = None


@dataclass
class Cluster:
    """The Ray cluster that is connected.

    nodes: those that trials can run on, and options as trials there take them: both once `check` knows the device.
    """

    say: Callable[[str], None]
    options: RunOptions
    versions: dict[str, str] = field(default_factory=identify)
    nodes: list[Node] = field(default_factory=list)

    def check(
        self,
        trials: Sequence[TrialConfig],
        paths: SweepPaths,
        *,
        gpus: int,
        cpus: int | None,
    ) -> None:
        """See on every node that trials can run on that its code, storage, data and device are fit for them.

        Raises ValueError with each node's problems and the way out.
        """
        alive, options = alive_nodes(), self.options
        device = choose_device(options.device, alive)
        self.nodes = [node for node in alive if node.cpus and (node.gpus or device == "cpu")]
        self._check_room(device, gpus=gpus, cpus=cpus)
        self.options = options.model_copy(
            update={
                "device": device,
                "data_dir": options.data_dir and options.data_dir.expanduser().absolute(),
                "files": {identity: path.absolute() for identity, path in options.files.items()},
            }
        )
        distinct = {
            (c.dataset, c.model, c.weights, c.patch_size, c.image_size, c.inflation): c.model_dump(mode="json")
            for c in trials
        }
        with _probe(paths.folder) as probe:
            what = str(paths.folder), probe, list(distinct.values()), self.options.model_dump(mode="json")
            answers = self._ask({node: (_look, (self.versions, node.id, *what)) for node in self.nodes})
            problems: dict[str, list[str]] = {}
            for node, answer in answers.items():
                found = [describe_difference(self.versions, answer["versions"])] if "versions" in answer else []
                found += answer["problems"]
                if not found and not (paths.folder / f"{probe}.{node.id}").exists():
                    found = [f"has another folder at {paths.folder}; put the run folder where all nodes see it"]
                for problem in filter(None, found):
                    problems.setdefault(problem, []).append(node.name)
        if problems:
            lines = [f"node {', '.join(names)}: {problem}" for problem, names in problems.items()]
            raise ValueError("the cluster is not fit for this sweep, nothing was started\n  " + "\n  ".join(lines))
        self.nodes = [dataclasses.replace(node, card_bytes=answers[node]["card_bytes"]) for node in self.nodes]
        self.say(f"{len(self.nodes)} nodes of the cluster are ready: {', '.join(node.name for node in self.nodes)}")

    def place(self, todo: Sequence[TrialConfig], *, gpus: int, share: float | None, cpus: int | None) -> Placement:
        """What each trial asks for, found out on the node with the fewest cores (per GPU), so that each takes part."""
        node = min(self.nodes, key=lambda node: (node.cpus / (node.gpus or 1), node.name))
        cards = min(gpus, node.gpus)
        if sum(each.gpus for each in self.nodes) > gpus and all(each.gpus < gpus for each in self.nodes):
            share = share or 1.0  # the cap holds over several nodes for whole cards alone
        memory = min((each.card_bytes for each in self.nodes if each.card_bytes), default=None)
        asked = {"gpus": cards, "share": share, "cpus": cpus, "cores": node.cpus, "card_bytes": memory}
        answer = self._ask({node: (_place, (list(todo), self.options, asked))})[node]
        if answer["problems"]:
            raise ValueError(f"node {node.name}: {answer['problems'][0]}")
        placement: Placement = answer["placement"]
        for line in answer["said"]:
            self.say(f"{line}, on {node.name}")
        side_by_side = sum(each.cpus // placement.cpus for each in self.nodes)
        slots = placement.slots // cards * gpus if memory else side_by_side
        return dataclasses.replace(placement, slots=max(1, slots))

    def _check_room(self, device: str, *, gpus: int, cpus: int | None) -> None:
        """Raise ValueError for resources that the cluster does not have: Ray would wait for them for ever."""
        if not self.nodes:
            raise ValueError("no node of the cluster gives out CPUs to trials; start one with `ray start --address`")
        most, cards = max(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        if cpus is not None and cpus > most:
            raise ValueError(f"--cpus-per-trial {cpus} is more than any node of the cluster has; use at most {most}")
        if device == "cuda" and gpus > cards:
            raise ValueError(f"--gpus {gpus} is more than the {cards} of the cluster; use at most {cards}")

    def _ask(self, questions: Mapping[Node, tuple[Callable[..., Any], tuple[Any, ...]]]) -> dict[Node, dict[str, Any]]:
        """Call a function on each node, all at once; a call that breaks gives its problem as the answer."""
        waiting: dict[Any, Node] = {}
        remote: Any = ray.remote  # Ray's types lack this scheduling strategy
        for node, (function, arguments) in questions.items():
            pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
            share = SLIVER if node.gpus else 0
            task = remote(num_cpus=0, num_gpus=share, max_retries=0, scheduling_strategy=pinned)(function)
            waiting[task.remote(*arguments)] = node
        answers: dict[Node, dict[str, Any]] = {}
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=PATIENCE)
            if not ready:
                names = ", ".join(node.name for node in waiting.values())
                self.say(f"waiting for {names}: busy with other work, or fetching data")
            for reference in ready:
                node = waiting.pop(reference)
                try:
                    answers[node] = ray.get(reference)
                except ray.exceptions.RayError as error:
                    last = str(error).strip().splitlines()[-1]
                    answers[node] = {"problems": [f"cannot be asked ({last}); look at its Ray's logs"]}
        return answers


def alive_nodes() -> list[Node]:
    """The alive nodes of the connected Ray, by address."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            name = f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
            found.append(Node(node["NodeID"], name, int(has.get("CPU", 0)), int(has.get("GPU", 0))))
    return sorted(found, key=lambda node: node.name)


def choose_device(asked: str, nodes: Sequence[Node]) -> str:
    """What --device means on a cluster: cuda where nodes have GPUs, unless cpu is asked for. Raises ValueError."""
    has = any(node.gpus for node in nodes)
    if asked == "auto":
        return "cuda" if has else "cpu"
    if asked not in ("cpu", "cuda"):
        raise ValueError(f"--device {asked} names no device of a whole cluster; use auto, cpu or cuda")
    if asked == "cuda" and not has:
        raise ValueError("--device cuda: no node of the cluster has a GPU; use --device auto or cpu")
    return asked


@contextlib.contextmanager
def _probe(folder: Path) -> Iterator[str]:
    """Put a marker file into `folder` for the nodes to answer to; yields its name, removes it and the answers."""
    name = f".probe.{os.getpid()}.{secrets.token_hex(4)}"
    (folder / name).write_text(name)
    try:
        yield name
    finally:
        for path in folder.glob(f"{name}*"):
            path.unlink(missing_ok=True)


def _look_by_value() -> Callable[..., dict[str, Any]]:
    """The question of the check, as a function inside one: those travel whole, to nodes without raypatch too."""

    def look(
        versions: dict[str, str], node_id: str, folder: str, probe: str, trials: list[Any], options: dict[str, Any]
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


def _place(todo: Sequence[TrialConfig], options: RunOptions, asked: dict[str, Any]) -> dict[str, Any]:
    said: list[str] = []
    return {"placement": place_trials(todo, options, say=said.append, **asked), "said": said, "problems": []}
