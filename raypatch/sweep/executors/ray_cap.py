"""The cap on physical GPUs, wherever Ray has them.

To Ray a share of a GPU is bookkeeping. So the cap is kept in two ways: by a node on which all
trials stay, and by how many run at once.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from raypatch.sweep.cost.placement import Placement

LOOK_SECONDS = 5.0
"""How long the watcher of a cluster's room goes between two looks."""

WAIT_SECONDS = 300.0
"""How long a cluster may be without a node that has what a trial asks for: one may be starting."""


def place_under_cap(placement: Placement, gpus: int) -> tuple[dict[str, Any], int | None]:
    """Return what each trial asks of the connected Ray and how many may run at once.

    Together they use `gpus` cards at most. The bundle is the largest trial's. Where Ray has more
    cards than that, trials stay on one node, which fills a card before it takes the next; whole
    cards may be spread over nodes. Returns the arguments of a PlacementGroupFactory, and None for
    no limit. Raises ValueError when Ray does not have what one trial asks for, which it would
    wait for without end.
    """
    bundle = placement.as_bundle()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    _check_room(nodes, bundle)
    request: dict[str, Any] = {"bundles": [bundle]}
    cards = {node["NodeID"]: node["Resources"].get("GPU", 0.0) for node in nodes}
    if not placement.gpu_share or sum(cards.values()) <= gpus:
        return request, None
    enough = [node_id for node_id, count in cards.items() if count >= gpus]
    if enough:
        # The smallest node that has enough leaves the larger ones to other work.
        chosen = min(enough, key=lambda node_id: (cards[node_id], node_id))
        request["bundle_label_selector"] = [{"ray.io/node-id": chosen}]
        return request, placement.slots
    if placement.gpu_share < 1:
        raise ValueError(f"no node has {gpus} GPUs to share; use --gpu-share 1 to spread whole GPUs over nodes")
    return request, gpus


def _check_room(nodes: Sequence[dict[str, Any]], bundle: dict[str, float]) -> None:
    """Raise ValueError when no node has what one trial asks for."""
    there_is = []
    for node in nodes:
        if _has_room(node, bundle):
            return
        resources = node["Resources"]
        there_is.append(f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU")
    raise ValueError(
        f"a trial asks for {bundle} and no node of Ray has that ({'; '.join(there_is)}); use --cpus-per-trial"
    )


def _has_room(node: dict[str, Any], bundle: dict[str, float]) -> bool:
    """Whether a trial's bundle fits on a node, were the node free."""
    return all(node["Resources"].get(name, 0) >= need for name, need in bundle.items())


def room_watcher(bundle: dict[str, float], request: dict[str, Any]) -> Callable[[], str | None]:
    """Return a cheap question: why can no trial start any more? None while one can.

    A sweep that the cap holds on one node ends with that node; any other waits WAIT_SECONDS for a
    new one. Looks at most every LOOK_SECONDS.
    """
    selectors = request.get("bundle_label_selector")
    pinned = selectors[0]["ray.io/node-id"] if selectors else None
    state = {"next": 0.0, "seen": time.monotonic()}

    def _can_start(node: dict[str, Any]) -> bool:
        allowed = pinned is None or pinned == node["NodeID"]
        return node["Alive"] and allowed and _has_room(node, bundle)

    def no_room() -> str | None:
        now = time.monotonic()
        if now < state["next"]:
            return None
        state["next"] = now + LOOK_SECONDS
        if any(_can_start(node) for node in ray.nodes()):
            state["seen"] = now
        elif pinned:
            return "the node that had this sweep's GPUs is gone"
        elif now - state["seen"] > WAIT_SECONDS:
            return f"no node has had {bundle} for a trial in {WAIT_SECONDS:g} s"
        return None

    return no_room
