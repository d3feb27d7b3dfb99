"""The cap on physical GPUs, wherever Ray has them. Shares are bookkeeping: the cap is a node and a number at once."""

import time
from collections.abc import Callable
from typing import Any

import ray

from raypatch.sweep.cost.placement import Placement

LOOK_SECONDS = 5.0
"""How long the watcher of a cluster's room goes between two looks."""

WAIT_SECONDS = 300.0
"""How long a cluster may be without a node that has what a trial asks for: one may be on its way."""


def place_under_cap(placement: Placement, gpus: int) -> tuple[dict[str, Any], int | None]:
    """Return what each trial asks of the connected Ray and how many may run at once, so that `gpus` cards are used.

    The bundle is the largest trial's. Where Ray has more cards than that, trials stay on one
    node, which fills a card before it takes the next; whole cards may be spread over nodes.
    Returns the arguments of a PlacementGroupFactory, and None for no limit. Raises ValueError
    when Ray does not have what one trial asks for, which it would wait for without end.
    """
    bundle = placement.as_bundle()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not any(_has_room(node, bundle) for node in nodes):
        there_is = []
        for node in nodes:
            resources = node["Resources"]
            there_is.append(f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU")
        raise ValueError(
            f"a trial asks for {bundle} and no node of Ray has that ({'; '.join(there_is)}); use --cpus-per-trial"
        )
    cards = {node["NodeID"]: node["Resources"].get("GPU", 0.0) for node in nodes}
    if not placement.gpu_share or sum(cards.values()) <= gpus:
        return {"bundles": [bundle]}, None
    enough = [node for node, count in cards.items() if count >= gpus]
    if enough:
        node = min(enough, key=lambda node: (cards[node], node))
        return {
            "bundles": [bundle],
            "bundle_label_selector": [{"ray.io/node-id": node}],
        }, placement.slots
    if placement.gpu_share < 1:
        raise ValueError(f"no node has {gpus} GPUs to share; use --gpu-share 1 to spread whole GPUs over nodes")
    return {"bundles": [bundle]}, gpus


def _has_room(node: dict[str, Any], bundle: dict[str, float]) -> bool:
    """Whether a trial's bundle fits on a node, were the node free."""
    return all(node["Resources"].get(name, 0) >= need for name, need in bundle.items())


def room_watcher(bundle: dict[str, float], request: dict[str, Any]) -> Callable[[], str | None]:
    """Return a cheap question: why can no trial start any more? None while one can.

    A sweep that the cap holds on one node ends with that node; any other waits WAIT_SECONDS for a
    new one. Looks at most every LOOK_SECONDS.
    """
    (pinned,) = [selector["ray.io/node-id"] for selector in request.get("bundle_label_selector", ())] or [None]
    state = {"next": 0.0, "seen": time.monotonic()}

    def no_room() -> str | None:
        now = time.monotonic()
        if now < state["next"]:
            return None
        state["next"] = now + LOOK_SECONDS
        alive = [node for node in ray.nodes() if node["Alive"] and pinned in (None, node["NodeID"])]
        if any(_has_room(node, bundle) for node in alive):
            state["seen"] = now
        elif pinned:
            return "the node that had this sweep's GPUs is gone"
        elif now - state["seen"] > WAIT_SECONDS:
            return f"no node has had {bundle} for a trial in {WAIT_SECONDS:g} s"
        return None

    return no_room
