"""What a node of a cluster finds out about itself, before a trial runs there."""

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
    """The first 12 hex digits of a SHA-256 over the code that trials run: raypatch without analysis."""
    root = Path(raypatch.__file__).parent
    digest = hashlib.sha256()
    sources = [*root.rglob("*.py"), *root.glob("data/*.json")]
    for path in sorted(sources):
        name = path.relative_to(root).as_posix()
        # An installed package has these two inside; in a checkout they lie beside it.
        if not name.startswith(("analysis/", "search_spaces/")):
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
    """Say in what a node differs from this machine, and what to do about it.

    The text is empty where it differs in nothing.
    """
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
        problems.append(
            f"does not see the run folder {folder}; put it where all nodes see it, with `raypatch run` by --runs-dir"
        )
    except OSError as error:
        problems.append(f"cannot write to the run folder {folder}: {error.strerror}; make it writable there")
    # Options and trials came as plain data: pydantic's objects need raypatch to be unpickled.
    node_options = RunOptions.model_validate(options)
    configs = [TrialConfig.model_validate(fields) for fields in trials]
    card_bytes = None
    try:
        check_before_start(configs, node_options, executor="ray", say=_say_nothing)
        device = resolve_device(node_options.device)
        card_bytes = total_memory(device) if device.type == "cuda" else None
    except ValueError as error:
        problems.append(str(error))
    return {"problems": problems, "card_bytes": card_bytes}


def admit(config: TrialConfig, sweep: SweepPaths, options: RunOptions, versions: Mapping[str, str]) -> None:
    """Check a node before a trial, as it may have joined after the cluster was checked.

    Missing data are fetched. Raises SweepHaltedError when its code or its storage is not the
    sweep's.
    """
    difference = describe_difference(versions, identify())
    if not sweep.record.exists():
        difference = f"does not see the run folder {sweep.folder}"
    if difference:
        raise SweepHaltedError(f"node {provenance()['host']} {difference}")
    check_data(config.source, options, say=_say_nothing)


def _say_nothing(text: str) -> None:
    pass
