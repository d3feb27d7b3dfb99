"""What a node of a cluster finds out about itself, so that it is known before a trial runs there."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import raypatch
from raypatch.config import RunOptions, TrialConfig
from raypatch.machine.runtime import provenance, resolve_device, total_memory
from raypatch.results import SweepPaths
from raypatch.sweep.executors.preflight import check_before_start, check_data
from raypatch.sweep.guard import SweepHaltedError

SAME_EVERYWHERE = ("raypatch", "python", "torch", "timm", "torchmetrics", "numpy")


@functools.cache
def source_digest() -> str:
    """The first 12 hex digits of a SHA-256 over the code that trials run: the package without the analysis."""
    root = Path(raypatch.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.glob("data/*.json")]):
        name = path.relative_to(root).as_posix()
        if not name.startswith(("analysis/", "search_spaces/")):  # of an installed package; beside it in a checkout
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def identify() -> dict[str, str]:
    """What must be the same on all nodes: versions, and a digest of the code.

    Of a version the part behind the + is left out: torch for CPUs and torch for GPUs differ in
    that alone.
    """
    here = provenance()
    versions = {name: here[name].partition("+")[0] for name in SAME_EVERYWHERE}
    return versions | {"code": source_digest()}


def describe_difference(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """In what a node differs from this machine, and what to do about it; empty when in nothing."""
    different = []
    for name, value in here.items():
        if there.get(name) != value:
            different.append(f"{name} {there.get(name)} (here {value})")
    if not different:
        return ""
    return f"has {', '.join(different)}; install the same there and start the node's Ray again"


def examine(
    folder: str,
    probe: str,
    node_id: str,
    trials: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Check on this node all that the trials need, fetching missing MedMNIST files.

    folder: the run folder, into which the driver put the file `probe`; this node answers with a
    copy of it whose name ends in its id. Returns problems (texts), and card_bytes, the memory of
    the GPU that this process sees, or None.
    """
    problems = []
    marker = Path(folder) / probe
    try:
        marker.with_name(f"{probe}.{node_id}").write_bytes(marker.read_bytes())
    except FileNotFoundError:
        problems.append(f"does not see the run folder {folder}; put it, by --runs-dir, where all nodes see it")
    except OSError as error:
        problems.append(f"cannot write to the run folder {folder}: {error.strerror}; make it writable there")
    where = RunOptions.model_validate(options)
    card_bytes = None
    try:
        check_before_start(
            [TrialConfig.model_validate(each) for each in trials],
            where,
            executor="ray",
            say=_say_nothing,
        )
        device = resolve_device(where.device)
        card_bytes = total_memory(device) if device.type == "cuda" else None
    except ValueError as error:
        problems.append(str(error))
    return {"problems": problems, "card_bytes": card_bytes}


def admit(config: TrialConfig, sweep: SweepPaths, options: RunOptions, versions: Mapping[str, str]) -> None:
    """Check, before a trial, a node that may have joined after the cluster was checked; fetch missing data.

    Raises SweepHaltedError when its code or its storage is not the sweep's.
    """
    difference = describe_difference(versions, identify())
    if not sweep.record.exists():
        difference = f"does not see the run folder {sweep.folder}"
    if difference:
        raise SweepHaltedError(f"node {provenance()['host']} {difference}")
    check_data(config.dataset, options, say=_say_nothing)


def _say_nothing(text: str) -> None:
    pass
